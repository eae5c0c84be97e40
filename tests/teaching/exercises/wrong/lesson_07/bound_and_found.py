from tests.teaching.exercises.wrong import Wrong

_BOTH = """
def least_makespan(devices, microbatches, t_forward, t_input, t_weight):
    p, m, F, I, W = devices, microbatches, t_forward, t_input, t_weight
    return {bound}


def found():
    rows = []
    for r in range(4):
        w, late = {warmup}, {late}
        row = [f"{{r}}F{{i}}" for i in range(w)]
        for i in range({m}):
            row += [f"{{r}}F{{w + i}}"] if w + i < {m} else []
            row.append(f"{{r}}I{{i}}")
            row += [f"{{r}}W{{i - late}}"] if i >= late else []
        row += [f"{{r}}W{{i}}" for i in range({m} - late, {m})]
        rows.append(",".join(row))
    return "\\n".join(rows)
"""
_H1 = {"warmup": "3 - r", "late": "r", "m": "8"}


def _bound(says, bound):
    return Wrong("bound_and_found", _BOTH.format(bound=bound, **_H1), says=says)


def _found(says, **changes):
    return Wrong("bound_and_found", _BOTH.format(bound="0.0", **{**_H1, **changes}), says=says)


WRONG = [
    _bound("You counted ZB-H1", "m * (F + I + W) + (p - 1) * (F + I - W)"),
    _bound("You counted 1F1B", "(m + p - 1) * (F + I + W)"),
    _bound("You added the way there and the way back", "m * (F + I + W) + (p - 1) * (F + I)"),
    _bound("You counted the work of one device", "m * (F + I + W)"),
    _bound("You counted the way of one micro-batch", "p * (F + I) + W"),
    _bound("there are I on each device before it", "(p - 1 + m) * F + m * (I + W)"),
    _bound("its first I cannot start before 12", "(p - 1 + m) * F + m * I + max(m * W, (p - 1) * I + W)"),
    _bound("That is no bound", "max(m * F, p * F + (p - 1) * I) + m * (I + W) + (p - 1) * F"),
    _found("1.089 times the bound"),
    _found("a device holds 7 micro-batches", warmup="2 * (3 - r)", late="2 * r"),
    _found("has 4 micro-batches instead of 8", m="4"),
    Wrong(
        "bound_and_found",
        """
def least_makespan(devices, microbatches, t_forward, t_input, t_weight):
    from pipelab import Costs
    from pipelab.teaching import search_schedule
    costs = Costs(t_forward, t_input + t_weight, input_gradient=t_input, weight_gradient=t_weight)
    return search_schedule(devices, microbatches, costs=costs, seconds=1).bound


def found():
    from pipelab import build_schedule
    return build_schedule("zb-h1", 4, 8).to_csv()
""",
        says="does not answer here",
    ),
]
