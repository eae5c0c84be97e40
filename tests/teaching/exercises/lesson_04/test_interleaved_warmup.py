"""What the check of warm-ups with chunks accepts."""

from pipelab.teaching.exercises.lesson_04.depths import depths_of, with_depths
from tests.teaching.exercises.trying import assert_reserved, open_parts


def test_one_less_than_all_forwards_is_the_same_warmup():
    def warmup(r, p, m, v):
        return min(2 * (p - 1 - r) + (v - 1) * (m // max(1, m // p)), m * v - 1)

    assert not open_parts("interleaved_warmup", interleaved_warmup=warmup)


def test_references_refuse_while_a_learners_function_runs():
    assert_reserved(lambda: with_depths([1, 0], 2, 1), lambda: depths_of(2, 2, 2))
