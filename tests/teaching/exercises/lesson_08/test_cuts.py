"""The best cuts that answers are compared with, what is read as a cut, and what refuses beside a learner's code."""

from itertools import combinations, pairwise, permutations
from random import Random

import pytest

from pipelab import plan_cuts
from pipelab.teaching.exercises.definition import Refused
from pipelab.teaching.exercises.lesson_08.best_cut import least_squares
from pipelab.teaching.exercises.lesson_08.cuts import best_placed, best_sizes, read_sizes, times
from pipelab.tuning.planning.partition import bottleneck, bottleneck_in_any_order
from tests.teaching.exercises.trying import assert_reserved


def all_sizes(layers, stages):
    for inner in combinations(range(1, layers), stages - 1):
        yield [b - a for a, b in pairwise((0, *inner, layers))]


def drawn(random, most):
    p = random.randint(1, most)
    costs = [random.choice((1, 2, 3, 0.5, 7.25)) for _ in range(random.randint(p, 8))]
    return costs, [random.choice((0.5, 1, 2, 3)) for _ in range(p)]


def test_no_cut_and_no_order_has_a_shorter_slowest_stage():
    random = Random(0)
    for _ in range(60):
        costs, speeds = drawn(random, 4)
        tried = {
            order: min(
                max(times(costs, sizes, [speeds[r] for r in order])) for sizes in all_sizes(len(costs), len(speeds))
            )
            for order in permutations(range(len(speeds)))
        }
        assert max(times(costs, best_sizes(costs, speeds), speeds)) == pytest.approx(tried[tuple(range(len(speeds)))])
        order, sizes = best_placed(costs, speeds)
        assert max(times(costs, sizes, [speeds[r] for r in order])) == pytest.approx(min(tried.values()))


def test_least_squares_are_least():
    random = Random(1)
    for _ in range(40):
        costs, speeds = drawn(random, 5)

        def squares(sizes, costs=costs):
            return sum(time**2 for time in times(costs, sizes))

        least = min(map(squares, all_sizes(len(costs), len(speeds))))
        assert squares(least_squares(costs, len(speeds))) == pytest.approx(least)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([2, 5], "places of the cuts"),
        ([0, 2, 5], "places of the cuts"),
        ([2, 5, 7], "places of the cuts"),
        ([0, 2, 5, 7], "places of the cuts"),
        ([1, 2, 3], "6, and the model has 7 layers: 1 is in no stage"),
        ([3, 3, 3], "2 are in two stages"),
        ([7, 0, 0], "Stage 1 has no layer"),
        ([4, 3], "one number for each stage, 3 in all"),
        ([], "3 in all"),
        ([[0, 1], [2], [3]], "how many layers it has"),
        ("2, 2, 3", "list of numbers"),
        ([2.5, 2.5, 2], "whole number"),
    ],
)
def test_what_is_no_cut_gets_a_sentence(given, says):
    with pytest.raises(Refused, match=says):
        read_sizes(given, "three stages: best_cut", 7, 3)


@pytest.mark.parametrize("given", [[1, 2, 4], [2.0, 2.0, 3.0], {"tensor": [5, 1, 1]}])
def test_numbers_that_add_up_are_a_cut_even_where_they_rise(given):
    assert sum(read_sizes(given, "three stages: best_cut", 7, 3)) == 7


def test_references_and_the_planner_refuse_while_a_learners_function_runs():
    assert_reserved(
        lambda: best_sizes([1, 2], [1, 1]),
        lambda: best_placed([1, 2], [1, 1]),
        lambda: least_squares([1, 2], 2),
        lambda: bottleneck(lambda stage, device: None, [0]),
        lambda: bottleneck_in_any_order(lambda stage, device: None, 1),
        lambda: plan_cuts(None, 2, batch=8),
    )
