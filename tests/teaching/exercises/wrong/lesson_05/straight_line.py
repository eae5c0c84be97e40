from tests.teaching.exercises.wrong import Wrong

_FIT = """
def fit(batch, timings):
    points = [({x}, {y}) for m, t in timings]
    {pick}
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    beta = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    alpha = mean_y - beta * mean_x
    return {result}
"""


def _fit(says, open=(), x="batch / m", y="t", pick="pass", result="alpha, beta"):
    return Wrong("straight_line", _FIT.format(x=x, y=y, pick=pick, result=result), says=says, open=open)


WRONG = [
    _fit("swapped", result="beta, alpha"),
    _fit("a larger micro-batch takes less time", x="m"),
    _fit(
        "through the origin",
        result="0.0, sum(x * y for x, y in points) / sum(x * x for x, _ in points)",
    ),
    _fit("first and the last point alone", open=("measured",), pick="points = [points[0], points[-1]]"),
    _fit("the cost of one more sequence", x="1 / m"),
    _fit("factor of 1000", y="t / 1000"),
    _fit("a line over 1/m, with its two numbers swapped", x="1 / m", result="beta, alpha"),
    _fit("a line over m, which falls, with its two numbers swapped", x="m", result="beta, alpha"),
    _fit("of such differences", open=("measured",), pick="points = [points[3], points[-2]]"),
    _fit("the sum of the squares", result="mean_y, beta"),
]
