"""What the check of m accepts, and that its formula is the simulator's."""

import math

import numpy as np
import pytest

from pipelab.schedules import build_schedule
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.lesson_05.best_m import best_of, makespan
from pipelab.tuning.profile import CostProfile
from tests.teaching.exercises.trying import assert_reserved, open_parts


def neighbours(p, batch, alpha, beta, multiple):
    star = math.sqrt((p - 1) * beta * batch / alpha)
    below = min(max(math.floor(star / multiple), 1), batch // multiple) * multiple
    above = min(below + multiple, batch // multiple * multiple)
    return min((below, above), key=lambda m: (m + p - 1) * (alpha + beta * batch / m))


def recomputed(p, batch, alpha, beta, alpha_r, beta_r):
    return math.sqrt((p - 1) * beta * batch / (alpha + alpha_r))


@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
@pytest.mark.parametrize("again", [0.5, 1.0, 1.8])
def test_the_second_forward_is_no_part_of_the_bubble(name, again):
    """What the exercise says: each micro-batch pays for it, and the p - 1 of the bubble do not."""
    for p, m in ((2, 1), (4, 2), (4, 8), (8, 16)):
        timeline = simulate(build_schedule(name, p, m, recompute=True), Costs(forward=1, backward=2, recompute=again))
        assert timeline.makespan == pytest.approx(m * (3 + again) + (p - 1) * 3)


def test_m_star_with_recomputation_is_where_its_time_is_least():
    p, batch, alpha, beta, alpha_r, beta_r = 4, 64, 4.44, 1.57, 1.5, 0.55
    star = recomputed(p, batch, alpha, beta, alpha_r, beta_r)

    def time(m):
        return m * (alpha + alpha_r + (beta + beta_r) * batch / m) + (p - 1) * (alpha + beta * batch / m)

    assert time(star) < min(time(0.99 * star), time(1.01 * star))


def test_the_formula_is_the_simulators_makespan():
    line = CostProfile.shipped().line()
    for p, m in ((2, 5), (4, 8), (3, 2)):
        for name in ("gpipe", "1f1b"):
            units = simulate(build_schedule(name, p, m)).makespan / 2  # tF = tB = 1
            assert units * line(64 / m) == pytest.approx(makespan(m, p, 64, line.alpha, line.beta))


def test_the_neighbours_of_m_star_are_enough_and_numpy_numbers_count():
    def star(p, batch, alpha, beta):
        return np.float64(math.sqrt((p - 1) * beta * batch / alpha))

    answers = {"m_star": star, "m_star_recomputed": recomputed}
    assert not open_parts("best_m", **answers, choose_m=lambda *given: np.int64(neighbours(*given)))


def test_m_star_may_be_rounded_to_two_decimals_and_be_an_array_of_one():
    def star(p, batch, alpha, beta):
        return round(math.sqrt((p - 1) * beta * batch / alpha), 2)

    for seed in range(4):
        answers = {"m_star": star, "choose_m": lambda *given: np.array([neighbours(*given)])}
        answers["m_star_recomputed"] = lambda *given: round(recomputed(*given), 2)
        assert not open_parts("best_m", seed, **answers)


@pytest.mark.parametrize("rule", ["p", "rounded", "4p", "sqrt"])
def test_no_rule_of_thumb_passes_all_cases(rule):
    def star(p, batch, alpha, beta):
        right = math.sqrt((p - 1) * beta * batch / alpha)
        wrong = {"p": math.sqrt(p * beta * batch / alpha), "rounded": round(right), "4p": 4 * p}
        return wrong.get(rule, math.sqrt(batch))

    def choose(p, batch, alpha, beta, multiple):
        wanted = round(star(p, batch, alpha, beta)) if rule in ("4p", "sqrt") else batch
        return min(max(wanted // multiple, 1) * multiple, batch // multiple * multiple)

    answers = {"m_star": star, "choose_m": choose, "m_star_recomputed": recomputed}
    assert open_parts("best_m", **answers) == {"the optimum", "a feasible m"}


def test_references_refuse_while_a_learners_function_runs():
    assert_reserved(lambda: best_of(2, 8, 1.0, 1.0), lambda: makespan(1, 1, 1, 1.0, 1.0))
