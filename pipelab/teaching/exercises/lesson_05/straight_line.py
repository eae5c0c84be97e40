"""Exercise of lesson 5: fit the line t(b) to timings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from statistics import fmean, median
from typing import Any

from pipelab import view
from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.judging import close, numbers


@reserved
def _least_squares(points: Sequence[tuple[float, float]], weigh: Callable[[float], float]) -> tuple[float, float]:
    """(alpha, beta) of the line with the least sum of weigh(y) * (line - y)**2."""
    rows = [(weigh(y), x, y) for x, y in points]
    w, wx, wy = (sum(part) for part in zip(*((r, r * x, r * y) for r, x, y in rows), strict=True))
    wxx, wxy = (sum(part) for part in zip(*((r * x * x, r * x * y) for r, x, y in rows), strict=True))
    beta = (w * wxy - wx * wy) / (w * wxx - wx * wx)
    return (wy - beta * wx) / w, beta


def _line_case(part: str, batch: int, alpha: float, beta: float, counts: Sequence[int], random: Random) -> Case:
    """(m, milliseconds): exact; or each size three times, but the largest and the smallest, the latter too long.

    Of three timings one is 5 to 8 % too long and one as much too short, so that no two of them make a line.
    """
    timings = []
    for m in sorted(counts, reverse=True):
        factors = [1.0]
        if part == "measured" and m == max(counts):
            factors = [1.3]
        elif part == "measured" and m > min(counts):
            sign, above, below = random.choice((-1, 1)), random.uniform(0.05, 0.08), random.uniform(0.05, 0.08)
            factors = [1 + sign * above, 1 - sign * below, 1 - sign * (above - below)]
            random.shuffle(factors)
        bias = 1.0 if part == "exact" else 1 + random.uniform(-0.008, 0.008)
        timings += [[m, round((alpha + beta * batch / m) * bias * factor, 4)] for factor in factors]
    words = f"a batch of {batch}, timings of m = {', '.join(str(m) for m in sorted(counts, reverse=True))}"
    return Case(part, {"batch": batch, "_timings": timings, "_alpha": alpha, "_beta": beta, "_words": words})


def _drawn_lines(random: Random) -> list[Case]:
    cases = []
    for part in ("exact", "exact", *["measured"] * 8):
        batch = random.choice((48, 64, 96, 128))
        counts = [m for m in range(2, batch + 1) if batch % m == 0]
        beta = random.choice((0.04, 0.5, 3.0)) * random.uniform(0.8, 1.25)
        cases.append(_line_case(part, batch, round(beta * random.uniform(2, 6), 4), round(beta, 4), counts, random))
    return cases


def _ask_line(call: Call, case: Case) -> Any:
    return call("fit", case["batch"], [tuple(pair) for pair in case["_timings"]])


def _judge_line(case: Case, data: Any) -> Finding | None:
    alpha, beta = numbers(data, f"{case.words}: (alpha, beta)", 2)
    points = [(case["batch"] / m, t) for m, t in case["_timings"]]
    fits = [*_right_fits(points), (case["_alpha"], case["_beta"])]
    if case.part == "measured":  # the slow run may stay out
        fits += _right_fits([point for point in points if point != min(points)])
    room = 0.01 if case.part == "exact" else 0.02
    if all(_between(mine, [fit[k] for fit in fits], room) for k, mine in enumerate((alpha, beta))):
        return None
    start = f"{case.words}: fit returned alpha = {alpha:.4g}, beta = {beta:.4g}. "
    return Finding(start + _line_mistake(alpha, beta, points, fits, case), partial(_points, alpha, beta, points))


def _right_fits(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """(alpha, beta) of the right ways: over timings, means or medians; errors in ms or in per cent."""
    weights: tuple[Callable[[float], float], ...] = (lambda y: 1.0, lambda y: 1 / y**2)
    by_size = {b: [t for size, t in points if size == b] for b in sorted({b for b, _ in points})}
    ways = (points, [(b, fmean(t)) for b, t in by_size.items()], [(b, median(t)) for b, t in by_size.items()])
    return [_least_squares(chosen, weigh) for chosen in ways for weigh in weights]


def _between(value: float, right: Sequence[float], room: float) -> bool:
    return min(right) * (1 - room) <= value <= max(right) * (1 + room)


def _line_mistake(
    alpha: float,
    beta: float,
    points: Sequence[tuple[float, float]],
    fits: Sequence[tuple[float, float]],
    case: Case,
) -> str:
    def right(a: float, b: float) -> bool:
        return _between(a, [fit[0] for fit in fits], 0.06) and _between(b, [fit[1] for fit in fits], 0.06)

    if right(beta, alpha):
        return "Both are right but swapped. First comes alpha, the fixed cost, then beta, the cost of one sequence."
    if right(alpha * 1000, beta * 1000) or right(alpha / 1000, beta / 1000):
        return "That is off by a factor of 1000. The timings are in milliseconds, and so are alpha and beta."
    batch = case["batch"]
    if right(beta, alpha / batch):
        return (
            "That is a line over 1/m, with its two numbers swapped. The line should be over b = B/m. Return alpha, the "
            "fixed cost, first, then beta, the cost of one sequence."
        )
    if alpha < 0 < beta and close(beta, _least_squares([(batch / b, t) for b, t in points], lambda y: 1.0)[0], 0.02):
        return (
            "That is a line over m, which falls, with its two numbers swapped. The line should be over b = B/m, the "
            "sequences in one micro-batch. Return alpha first, then beta."
        )
    if beta < 0:
        return (
            "A negative beta says that a larger micro-batch takes less time. The timings are given with m, but the "
            "line should be over b = B/m, the sequences in one micro-batch."
        )
    size, time = min(points)
    if abs(alpha) < 1e-6 * time:
        return (
            f"A line through the origin has no fixed cost. It gives {beta * size:.3g} ms for a micro-batch of "
            f"{size:g}, but {time:.3g} ms were measured."
        )
    if right(alpha, beta * batch) or right(alpha, beta / batch):
        return "Alpha is right. Beta should be the cost of one more sequence, not of the whole batch."
    (x, y), (u, v) = min(points), max(points)
    if close(beta, (v - y) / (u - x), 0.005) and close(alpha, y - beta * x, 0.02):
        return (
            f"That is the line through the first and the last point alone. The point at b = {x:g} was measured once "
            "and came out slow. Use all points."
        )
    worst = max(points, key=lambda point: abs((alpha + beta * point[0]) / point[1] - 1))
    return (
        f"At b = {worst[0]:g} that gives {alpha + beta * worst[0]:.3g} ms, but {worst[1]:.3g} ms were measured. "
        "Which line makes the sum of the squares of such differences smallest?"
    )


def _points(alpha: float, beta: float, points: Sequence[tuple[float, float]]) -> view.Picture:
    sizes = sorted({b for b, _ in points})
    means = [[t for size, t in points if size == b] for b in sizes]
    curves = {"Timings (means)": [sum(t) / len(t) for t in means], "Your line": [alpha + beta * b for b in sizes]}
    across, up = "sequences b in a micro-batch", "milliseconds"
    return view.plot_curves(sizes, curves, across=across, up=up, title="Timings and your line", note="Clock: device.")


EXERCISE = Exercise(
    name="straight_line",
    lesson="05_choosing_m",
    title="Fit the line",
    answers=("fit",),
    parts={"exact": 1, "measured": 1},
    visible=[
        _line_case("exact", 8, 3.0, 2.0, (8, 4, 2), Random(1)),
        _line_case("exact", 64, 4.44, 1.57, (64, 32, 16, 8, 4, 2), Random(2)),
        _line_case("measured", 64, 4.44, 1.57, (64, 32, 16, 8, 4, 2), Random(13)),
        _line_case("measured", 96, 0.31, 0.06, (96, 48, 24, 12, 6, 3), Random(3)),
        _line_case("measured", 60, 9.0, 2.0, (60, 30, 20, 12, 6, 3), Random(8)),
    ],
    drawn=_drawn_lines,
    ask=_ask_line,
    judge=_judge_line,
)
