"""What the check of cuts accepts."""

import math

import numpy as np

from pipelab.teaching.exercises import exercise
from pipelab.teaching.exercises.lesson_08.cuts import times
from tests.teaching.exercises.lesson_08.test_cuts import all_sizes
from tests.teaching.exercises.trying import open_parts


def by_limit(costs, stages):
    """The other way: the least limit up to which greedy filling needs no more stages than there are."""

    def fill(limit):
        sizes, held = [0], 0.0
        for k, cost in enumerate(costs):
            left = len(costs) - k
            if sizes[-1] and (held + cost > limit or left <= stages - len(sizes)):
                sizes.append(0)
                held = 0.0
            sizes[-1] += 1
            held += cost
        return sizes

    low, high = max(costs), sum(costs)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if len(fill(middle)) <= stages else (middle, high)
    return fill(high)


def test_greedy_filling_up_to_the_right_limit_is_accepted():
    assert not open_parts("best_cut", best_cut=by_limit)


def test_any_best_cut_is_accepted_and_numpy_is():
    def last_of_the_best(costs, stages):
        if len(costs) > 10:
            return np.array(by_limit(costs, stages))
        found = sorted(all_sizes(len(costs), stages), reverse=True)
        return np.array(min(found, key=lambda sizes: max(times(costs, sizes))))

    assert not open_parts("best_cut", best_cut=last_of_the_best)


def test_all_cuts_of_the_large_cases_are_beyond_trying():
    for case in exercise("best_cut").cases(seed=3):
        if case.part == "large":
            assert math.comb(len(case["costs"]) - 1, case["stages"] - 1) > 10_000


def test_a_picture_shows_the_stages_where_there_are_few():
    made = exercise("best_cut")
    case = next(case for case in made.visible if case["costs"] == [4, 7, 3, 6])
    assert "Your cut, 3 stages" in made.judge(case, [2, 1, 1]).picture().alt
