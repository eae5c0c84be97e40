"""What the check of bubbles accepts, and its least m."""

from fractions import Fraction

import numpy as np

from pipelab.teaching.exercises.lesson_02.bubbles import least
from tests.teaching.exercises.trying import assert_reserved, open_parts


def test_the_least_m_for_90_per_cent():
    assert [least(p, 90) for p in range(1, 40)] == [max(1, 9 * (p - 1)) for p in range(1, 40)]


def test_numbers_in_other_forms_are_as_right():
    def bubble_fraction(p, m, *times):
        f, b, r = map(Fraction, times)
        return (p - 1) * (f + b) / ((p - 1) * (f + b) + m * (f + r + b))

    def bubble_ratio(p, m, f, b, r):
        return np.float32((p - 1) * (f + b) / (m * (f + r + b)))

    def least_microbatches(p, percent):
        m = 1
        while m / (m + p - 1) < percent / 100:
            m += 1
        return float(m)

    answers = {"bubble_ratio": bubble_ratio, "least_microbatches": least_microbatches}
    assert open_parts("bubbles", bubble_fraction=bubble_fraction, **answers) == set()


def test_a_fraction_from_idle_and_work_is_as_right():
    def bubble_fraction(p, m, forward, backward, recompute):
        idle, work = p * (p - 1) * (forward + backward), p * m * (forward + backward + recompute)
        return idle / (idle + work)

    assert open_parts("bubbles", bubble_fraction=bubble_fraction) == {"ratio", "least m"}


def test_the_reference_refuses_while_a_learners_function_runs():
    assert_reserved(lambda: least(2, 90))
