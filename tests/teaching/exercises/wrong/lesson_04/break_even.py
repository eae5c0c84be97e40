from tests.teaching.exercises.wrong import Wrong

_EVEN = """
from pipelab import Costs, simulate

def break_even(plain, interleaved, forward, backward):
    f, b = forward, backward
    p, m, v = plain.devices, plain.microbatches, interleaved.chunks
    saved = (p - 1) * (f + b) * (1 - 1 / v)

    def lead(latency):
        return {lead}

    low, high = 0.0, {high}
    while {double} and lead(high) > 0:
        low, high = high, 2 * high
    for _ in range({halvings}):
        middle = (low + high) / 2
        low, high = (middle, high) if lead(middle) > 0 else (low, middle)
    return {answer}
"""
_BOTH = (
    "simulate(plain, Costs(forward={f}, backward={b}, latency=latency)).makespan"
    " - simulate(interleaved, Costs(forward={g}, backward={c}, latency=latency)).makespan"
)
_SEARCH = {
    "lead": _BOTH.format(f="f", b="b", g="f", c="b"),
    "high": "f",
    "double": "True",
    "halvings": 14,
    "answer": "high",
}


def _even(says, open=(), costs=None, **changes):
    if costs is not None:
        changes["lead"] = _BOTH.format(**{"f": "f", "b": "b", "g": "f", "c": "b", **costs})
    return Wrong("break_even", _EVEN.format(**{**_SEARCH, **changes}), says=says, open=open)


def _formula(answer, says):
    return _even(says, answer=answer, double="False", halvings=0)


WRONG = [
    # the v-fold number of messages is ignored: as many on the way as 1F1B has
    _formula("saved / (2 * (p - 1))", "on one schedule's way"),
    _formula("saved / (2 * m * (p * v - 1) - 2 * m * (p - 1))", "divided by the number of all added messages"),
    _formula("saved / (2 * p * (v - 1))", "GPipe waits for messages only there"),
    _formula("saved / (2 * (p * v - 1))", "on one schedule's way"),
    _formula("saved", "as if there were one message"),
    _even("by v twice", costs={"g": "f / v", "c": "b / v"}),
    _even("the default of Costs", costs={"b": "1.0", "c": "1.0"}),
    _formula("next(k / 40 * f for k in range(400) if lead(k / 40 * f) <= 1e-9)", "take a finer step"),
    _even("the upper end of your interval", double="False", open=("other costs",)),
    _even("Are the two schedules exchanged", lead=f"-({_SEARCH['lead']})"),
    _formula("next(k / 8 * f for k in range(8) if lead(k / 8 * f) >= 0)", "Are the two schedules exchanged"),
    _even("in the unit of the two times", costs={"f": "1.0", "b": "b / f", "g": "1.0", "c": "b / f"}, high="1.0"),
    _even("Give Costs both times", costs={"b": "f", "c": "f"}, open=("other costs",)),
    _even("Is your interval wide enough", high="1.0", double="False"),
    _even("fine enough for an answer within 1 %", halvings=2),
    _formula("0", "the answer is above 0"),
]
