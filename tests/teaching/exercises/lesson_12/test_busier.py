"""That the check's figures are those of the formulas."""

from pytest import approx

from pipelab.teaching.exercises.lesson_12.busier import _given, truth
from pipelab.teaching.exercises.lesson_12.evidence import both_parts


def test_with_equal_stages_both_are_busy_for_m_of_m_plus_p_minus_1():
    (case, _) = both_parts([_given(4, ("gpipe", 8), ("1f1b", 16), [2.0] * 4, 2)])
    assert truth(case) == approx([8 / 11, 16 / 19])
