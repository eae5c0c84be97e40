"""What the check of unlike devices accepts."""

from itertools import permutations

import numpy as np

from pipelab.teaching.exercises import exercise
from pipelab.teaching.exercises.lesson_08.cuts import best_placed, best_sizes, times
from tests.teaching.exercises.lesson_08.test_cuts import all_sizes
from tests.teaching.exercises.trying import open_parts


def cut_for(costs, speeds):
    found = sorted(all_sizes(len(costs), len(speeds)), reverse=True)
    return np.array(min(found, key=lambda sizes: max(times(costs, sizes, speeds))))


def best_order(costs, speeds):
    """The last of all orders that are equally good."""

    def slowest(order):
        placed = [speeds[r] for r in order]
        return round(max(times(costs, cut_for(costs, placed), placed)), 9)

    order = min(sorted(permutations(range(len(speeds))), reverse=True), key=slowest)
    return np.array(order), cut_for(costs, [speeds[r] for r in order])


def test_any_best_cut_and_any_best_order_are_accepted_and_numpy_is():
    assert not open_parts("unlike_cut", cut_for=cut_for, best_order=best_order)


def test_sorting_the_devices_is_not_best_in_some_visible_case():
    for reverse in (True, False):
        worse = 0
        for case in exercise("unlike_cut").visible:
            if case.part == "any order":
                costs, speeds = case["costs"], case["speeds"]
                order, sizes = best_placed(costs, speeds)
                placed = sorted(speeds, reverse=reverse)
                mine = max(times(costs, best_sizes(costs, placed), placed))
                worse += mine > 1.01 * max(times(costs, sizes, [speeds[r] for r in order]))
        assert worse >= 2
