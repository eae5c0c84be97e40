from tests.teaching.exercises.wrong import Wrong

_CHOOSE = """
from pipelab import Costs, simulate


def choose(tables, t_forward, t_input, t_weight, t_message, share):
    costs = {costs}
    runs = {{name: simulate(table, costs) for name, table in tables.items()}}
    limit = {limit}
    fits = [name for name, run in runs.items() if {held} <= limit + 1e-9]
    return min(fits, key=lambda name: {key}, default="none")
"""
_WHOLE = "t_input + t_weight"
_RIGHT = {
    "costs": f"Costs(t_forward, {_WHOLE}, input_gradient=t_input, weight_gradient=t_weight, latency=t_message)",
    "limit": 'share * runs["1f1b"].peak_microbatches[0]',
    "held": "max(run.peak_microbatches)",
    "key": "runs[name].makespan",
}
_MORE = ("1F1B's memory or more",)
_LESS = ("less memory",)


def _choose(says, open=(), **changes):
    return Wrong("fastest_that_fits", _CHOOSE.format(**{**_RIGHT, **changes}), says=says, open=open)


WRONG = [
    _choose("the limit on memory counts first", limit="float('inf')", open=_LESS),
    _choose("a share of what 1F1B's device 0 holds", limit="share"),
    _choose("Device 0 is not always the fullest", held="run.peak_microbatches[0]", open=_LESS),
    _choose(
        "A micro-batch on one of two chunks is half a share",
        held="max(run.peak_microbatches) * tables[name].chunks",
    ),
    _choose("if messages took no time", open=_MORE, costs=_RIGHT["costs"].replace(", latency=t_message", "")),
    _choose(
        "if I and W took half of B each", open=_MORE, costs="Costs(t_forward, t_input + t_weight, latency=t_message)"
    ),
    _choose("at tF = tI = tW = 1", open=_MORE, costs="Costs(1, 2, latency=t_message)"),
    _choose("whole backwards", open=_MORE, costs=_RIGHT["costs"].replace(_WHOLE, "1")),
    _choose("It holds the least", open=_MORE, key="max(runs[name].peak_microbatches)"),
    _choose("should return a name", key="runs[name].makespan), max([0]", costs=_RIGHT["costs"] + "; return 1"),
]
