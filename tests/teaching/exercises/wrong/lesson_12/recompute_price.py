from tests.teaching.exercises.wrong import Wrong

_TEXT = """
def recompute_price(plain, again, forward, backward):
    costs = {costs}
    a, b = simulate(plain, costs), simulate(again, costs)
    work, step = sum(b.busy) / sum(a.busy) - 1, b.makespan / a.makespan - 1
    return {figures}, {verdict}
"""
_RIGHT = {
    "costs": "Costs(forward=forward, backward=backward)",
    "figures": "[work, step]",
    "verdict": "0.3 <= step <= 0.37",
}


def _but(says, *parts, **changed):
    return Wrong("recompute_price", _TEXT.format(**{**_RIGHT, **changed}), says=says, open=parts)


WRONG = [
    _but("The second figure is that of the work", "evidence", figures="[work, work]"),
    _but("The first figure is that of the step", "evidence", figures="[step, step]"),
    _but("in the wrong order", "evidence", figures="[step, work]"),
    _but("the new times over the old ones", "evidence", figures="[1 + work, 1 + step]"),
    _but("by the time with recomputation", "evidence", figures="[1 - 1 / (1 + work), 1 - 1 / (1 + step)]"),
    _but("A forward was compared with a backward", "evidence", figures="[forward / backward] * 2"),
    _but("These are times", "evidence", figures="[sum(b.busy) - sum(a.busy), b.makespan - a.makespan]"),
    _but("All costs were 1", "evidence", costs="Costs()"),
    _but("at least 30 % and at most 37 %", "verdict", verdict="0.3 <= work <= 0.37"),
    _but("your verdict is True", "verdict", verdict="backward == 2 * forward"),
    _but("your verdict is False", "verdict", verdict="False"),
]
