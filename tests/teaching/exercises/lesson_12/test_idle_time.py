"""That the check's figures are those of the formula."""

import pytest

from pipelab.teaching.exercises.lesson_12.idle_time import EXERCISE, _schedules, truth


@pytest.mark.parametrize("case", EXERCISE.visible[:4], ids=lambda case: case.words)
def test_the_idle_time_is_p_times_p_minus_1_pairs(case):
    p = _schedules(case)[0].devices
    wanted = [p * (p - 1) * 3 * (case["_fixed"] + case["_each"] * size) for size in case["_sizes"]]
    assert truth(case) == pytest.approx(wanted)
