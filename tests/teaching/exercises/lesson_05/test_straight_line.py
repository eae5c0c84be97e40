"""What the check of lines accepts: any sensible fit, and no two points."""

import numpy as np
import pytest

from pipelab.teaching.exercises import exercise
from pipelab.teaching.exercises.lesson_05.straight_line import _least_squares
from pipelab.tuning.lines import fit_line
from tests.teaching.exercises.trying import assert_reserved, open_parts


def polyfit(batch, timings):
    b, t = np.array([(batch / m, t) for m, t in timings]).T
    beta, alpha = np.polyfit(b, t, 1)
    return alpha, beta


def relative(batch, timings):
    line = fit_line([(batch / m, t) for m, t in timings])
    return [line.alpha, line.beta]


def medians(batch, timings):
    by_size = {}
    for m, t in timings:
        by_size.setdefault(batch / m, []).append(t)
    line = fit_line([(b, sorted(t)[len(t) // 2]) for b, t in by_size.items()])
    return np.array([line.alpha, line.beta])


def relative_without_the_slow_first_run(batch, timings):
    return relative(batch, timings[1:] if len(timings) > 6 else timings)


def means(batch, timings):
    by_size = {m: [t for size, t in timings if size == m] for m, _ in timings}
    return polyfit(batch, [(m, sum(t) / len(t)) for m, t in by_size.items()])


def without_the_slow_first_run(batch, timings):
    return polyfit(batch, [pair for pair in timings if pair[0] < max(m for m, _ in timings) or len(timings) < 7])


RIGHT_FITS = [
    polyfit,
    relative,
    medians,
    means,
    without_the_slow_first_run,
    relative_without_the_slow_first_run,
]


@pytest.mark.parametrize("fit", RIGHT_FITS)
@pytest.mark.parametrize("seed", range(4))
def test_any_sensible_fit_counts(fit, seed):
    assert not open_parts("straight_line", seed, fit=fit)


@pytest.mark.parametrize("seed", range(4))
def test_two_points_and_the_origin_never_count(seed):
    def ends(batch, timings):
        points = sorted((batch / m, t) for m, t in timings)
        (x, y), (u, v) = points[0], points[-1]
        beta = (v - y) / (u - x)
        return y - beta * x, beta

    def origin(batch, timings):
        return 0, sum(t for _, t in timings) / sum(batch / m for m, _ in timings)

    for case in exercise("straight_line").cases(seed)[2:]:
        if case.part == "measured":
            pairs = [tuple(pair) for pair in case["_timings"]]
            for answer in (ends(case["batch"], pairs), origin(case["batch"], pairs)):
                assert exercise("straight_line").judge(case, list(answer)) is not None


def through(points, i, j):
    (x, y), (u, v) = points[i], points[j]
    beta = (v - y) / (u - x) if u != x else 0.0
    return [y - beta * x, beta]


@pytest.mark.parametrize("seed", range(4))
def test_no_two_timings_make_the_line(seed):
    """Whichever two are picked, by their place from either end, some case on the page refuses."""
    straight = exercise("straight_line")
    cases = {"visible": [], "all": []}
    for case in straight.cases(seed):
        if case.part == "measured":
            points = [(case["batch"] / m, t) for m, t in case["_timings"]]
            cases["all"].append((case, points))
            if case in straight.visible:
                cases["visible"].append((case, points))
    passed = {"visible": 0, "all": 0}
    places = [(i, j) for i in range(-10, 10) for j in range(-10, 10) if i != j]
    for kind, tried in cases.items():
        for i, j in places:
            passed[kind] += all(straight.judge(case, through(points, i, j)) is None for case, points in tried)
    assert passed["visible"] == 0
    assert passed["all"] == 0


def test_the_reference_refuses_while_a_learners_function_runs():
    assert_reserved(lambda: _least_squares([(1, 1), (2, 2)], lambda y: 1.0))
