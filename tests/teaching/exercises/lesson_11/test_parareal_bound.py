"""That the formula is the length of a flow with a worker for each slice."""

from random import Random

import pytest

from pipelab.flow import Flow, Resource, Stage
from pipelab.teaching.exercises.lesson_11.parareal_bound import EXERCISE, _drawn, _length, gain, most, takes
from pipelab.teaching.flows.parareal import Diffusion, Parareal
from tests.teaching.exercises.trying import assert_reserved

CASES = [*EXERCISE.visible, *(case for seed in range(3) for case in _drawn(Random(seed)))]


@pytest.mark.parametrize(("slices", "iterations", "coarse", "fine"), [(8, 2, 3, 50), (6, 6, 1, 9), (10, 3, 5, 7)])
def test_it_takes_as_long_as_the_flow_is_predicted_to(slices, iterations, coarse, fine):
    solver = Parareal(Diffusion(), slices, iterations, fine_steps=1, coarse_steps=1)
    pool = Resource("core", workers=slices)
    flow = Flow(
        Stage("fine", solver.fine, pool, needs=solver.fine_needs, kind=solver.kind, buffer=None),
        Stage("sweep", solver.sweep, pool, needs=solver.sweep_needs, buffer=None),
    )
    costs = {("fine", "guess"): 0.0, ("fine", "correct"): fine, "sweep": coarse}
    timeline = flow.predict(len(solver.tasks), costs)
    assert timeline.makespan == pytest.approx(takes(slices, iterations, coarse, fine))


def test_no_speed_up_exceeds_slices_over_iterations():
    for case in CASES:
        if case.part == "speed-up":
            assert gain(**case.given) < case["slices"] / case["iterations"]


def test_the_most_iterations_are_the_last_that_gain_enough():
    for case in CASES:
        if case.part == "most iterations":
            n, c, f, wanted = (case[name] for name in ("slices", "coarse", "fine", "wanted"))
            k = most(n, c, f, wanted)
            assert k == 0 or gain(n, k, c, f) >= wanted
            assert k == n or gain(n, k + 1, c, f) < wanted


def test_the_best_number_of_slices_is_next_to_the_root():
    for case in CASES:
        if case.part == "best number of slices":
            root = (case["iterations"] * case["work"] / case["coarse"]) ** 0.5
            low, high = case["iterations"], case["limit"]
            best = min(range(low, high + 1), key=lambda n: _length(n, case))
            assert best in (low, high) or abs(best - root) < 1


@pytest.mark.parametrize("data", [None, [], float("nan"), {"a": 1}, "x", -1])
def test_what_is_no_answer_gets_a_sentence(data):
    for case in EXERCISE.visible:
        assert EXERCISE.verdict(case, {"data": data}).message


def test_the_references_refuse_while_a_learners_function_runs():
    assert_reserved(lambda: takes(4, 1, 1, 9), lambda: gain(4, 1, 1, 9), lambda: most(4, 1, 9, 2))
