"""What the check of warm-ups accepts."""

import numpy as np

from tests.teaching.exercises.trying import open_parts


def test_a_warmup_of_m_or_m_minus_1_is_one_and_the_same_order():
    assert not open_parts("warmup", warmup=lambda r, p, m: min(p - 1 - r, m - 1))
    assert not open_parts("warmup", warmup=lambda r, p, m: np.int64(min(p - 1 - r, m)))
