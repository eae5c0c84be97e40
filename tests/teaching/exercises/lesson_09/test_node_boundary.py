"""That the check's best cut and order are the best, and what it accepts."""

from itertools import combinations, pairwise, permutations
from random import Random

import pytest

from pipelab.schedules import build_schedule
from pipelab.simulation import simulate
from pipelab.teaching.exercises.lesson_09.mistakes import shown, the_only
from pipelab.teaching.exercises.lesson_09.node_boundary import EXERCISE, _drawn, _weights, crossing, least, moved
from tests.teaching.exercises.trying import assert_reserved, open_parts

DRAWN = [case for seed in range(3) for case in _drawn(Random(seed))]


def heaviest(cuts, costs, sizes, devices, inside, between):
    """By the words of the exercise."""
    weights = []
    for k, (i, j) in enumerate(pairwise((0, *cuts, len(costs)))):
        weights.append(sum(costs[i:j]))
        if k < devices - 1:
            weights.append(sizes[j - 1] / (between if k == devices // 2 - 1 else inside))
    return max(weights)


def all_cuts(costs, devices):
    return combinations(range(1, len(costs)), devices - 1)


def last_best(costs, sizes, devices, *links):
    """Of all best cuts the last one in order."""
    return min(reversed(list(all_cuts(costs, devices))), key=lambda c: heaviest(c, costs, sizes, devices, *links))


def test_the_best_cut_is_that_of_all_cuts():
    for case in [*EXERCISE.visible, *DRAWN]:
        if case.part == "which cut":
            costs, sizes, p, *links = case["_given"]
            value, cuts = least(case, _weights(case)[""][0])
            assert value == heaviest(cuts, costs, sizes, p, *links)
            assert value == min(heaviest(c, costs, sizes, p, *links) for c in all_cuts(costs, p))


def by_chance(nodes, chunks):
    """A best order that is not the sorted one: nodes from the last on, devices in each too."""
    return sorted(range(len(nodes)), key=lambda d: (-nodes[d], -d))


def test_any_best_cut_and_any_best_order_are_right():
    assert not open_parts(
        "node_boundary",
        cut_for_nodes=last_best,
        crossings=lambda nodes, order, v: 2 * sum(a != b for a, b in pairwise([nodes[d] for d in order] * v)),
        best_order=by_chance,
    )


def test_devices_of_a_node_side_by_side_cross_least():
    for nodes in ([0, 1], [0, 1, 0, 1], [0, 0, 1, 0], [2, 0, 1, 0, 1], [0, 1, 2]):
        for v in (1, 2, 3):
            best = min(crossing(nodes, order, v) for order in permutations(range(len(nodes))))
            assert crossing(nodes, sorted(range(len(nodes)), key=nodes.__getitem__), v) == best


@pytest.mark.parametrize(("p", "v"), [(2, 1), (4, 1), (2, 2), (4, 2), (4, 3)])
def test_a_run_sends_as_many_between_nodes(p, v):
    """As the answer says: 2 times a micro-batch with two nodes, and 2 (2v - 1) with v stages on each device."""
    nodes = [r // (p // 2) for r in range(p)]
    table = build_schedule("1f1b", p, p) if v == 1 else build_schedule("interleaved", p, p, v)
    between = sum(nodes[m.source] != nodes[m.destination] for m in simulate(table).messages)
    assert between == p * crossing(nodes, range(p), v) == p * 2 * (2 * v - 1)


def test_drawn_cuts_are_moved_by_the_boundary():
    cases = [case for case in DRAWN if case.part == "which cut"]
    assert sum(map(moved, cases)) >= len(cases) / 2


def test_a_mistake_is_named_where_no_other_gives_the_same():
    assert the_only([(False, "a"), (True, "b")]) == "b"
    assert the_only([(True, "a"), (True, "b")]) == the_only([]) == ""
    assert shown([1, 2.5]) == "[1, 2.5]"
    assert shown(range(99)).endswith("15, ...]")


def test_the_references_refuse_while_a_learners_function_runs():
    case = EXERCISE.visible[0]
    weight = _weights(case)[""][0]
    assert_reserved(lambda: least(case, weight), lambda: crossing([0, 1], [0, 1], 1), lambda: moved(case))
