"""What the check of warm-ups accepts."""

from itertools import product

import numpy as np

from pipelab.schedules.warmups import with_warmups
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.lesson_03.beside_1f1b import right_depths
from tests.teaching.exercises.trying import assert_reserved, open_parts


def test_a_warmup_of_m_or_m_minus_1_is_one_and_the_same_order():
    assert not open_parts("warmup", warmup=lambda r, p, m, message=0: min((p - 1 - r) * (1 + message), m - 1))
    assert not open_parts("warmup", warmup=lambda r, p, m, message=0: np.int64(min((p - 1 - r) * (1 + message), m)))


def test_without_messages_the_other_parts_are_earned_by_a_function_of_three():
    assert open_parts("warmup", warmup=lambda r, p, m: min(p - 1 - r, m)) == {"messages"}


def span(depths, m, message):
    return simulate(with_warmups(depths, m), Costs(latency=message)).makespan


def test_the_depths_asked_for_are_the_fewest_that_reach_the_bound():
    """Filling and draining cannot be shorter; with one forward less on any device the step is longer."""
    for p, m, message in product((1, 2, 3, 5), (1, 2, 4, 5, 13), (0, 1, 3)):
        depths = right_depths(p, m, message)
        bound = 2 * (m + p - 1) + 2 * (p - 1) * message
        assert span(depths, m, message) == bound
        for r in range(p - 1):
            fewer = min(depths[r], m - 1) - 1  # m and m - 1 are the same order
            if fewer >= 0:
                shallow = [*depths[:r], fewer, *(min(depth, fewer) for depth in depths[r + 1 :])]  # no wait cycle
                assert span(shallow, m, message) > bound


def test_the_reference_refuses_while_a_learners_function_runs():
    assert_reserved(lambda: right_depths(2, 3))
