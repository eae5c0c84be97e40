"""That the check's steps are those of the formula."""

import pytest

from pipelab.teaching.exercises.lesson_12.best_size import EXERCISE, _schedules, truth


@pytest.mark.parametrize("case", EXERCISE.visible[:4], ids=lambda case: case.words)
def test_a_step_is_m_plus_p_minus_1_pairs(case):
    p, batch = _schedules(case)[1].devices, case["_batch"]
    wanted = [(batch // b + p - 1) * 3 * (case["_fixed"] + case["_each"] * b) for b in case["_sizes"]]
    assert truth(case) == pytest.approx(wanted)
