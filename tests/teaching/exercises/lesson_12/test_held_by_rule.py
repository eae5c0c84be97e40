"""That the check's peaks are those of a count by hand."""

import pytest

from pipelab.teaching.exercises.lesson_12.held_by_rule import EXERCISE, _schedule, truth


def counted(schedule):
    """F adds a share of a micro-batch and B takes one away, in each device's order."""
    peaks = []
    for row in schedule.programs:
        held = peak = 0
        for action in row:
            held += 1 if action.op == "F" else -1
            peak = max(peak, held)
        peaks.append(peak / schedule.chunks)
    return peaks


@pytest.mark.parametrize("case", EXERCISE.visible[:6], ids=lambda case: case.words)
def test_peaks_are_those_of_the_order_alone(case):
    assert truth(case) == counted(_schedule(case))
