"""That the check's figures are those of the formula, and that the step is another matter than the work."""

import pytest

from pipelab.teaching.exercises.lesson_12.recompute_price import EXERCISE, truth


@pytest.mark.parametrize("case", EXERCISE.visible[:5], ids=lambda case: case.words)
def test_work_grows_by_a_forward(case):
    forward, backward = case["_costs"]
    work, step = truth(case)
    assert work == pytest.approx(forward / (forward + backward))
    assert 0 < step <= work
