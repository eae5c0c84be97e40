"""That the least batch is that of a search, that the share is a long run's, and what the check accepts."""

from random import Random

import pytest

from pipelab.teaching.exercises.lesson_11.least_batch import EXERCISE, _drawn, largest, least, share
from tests.teaching.exercises.trying import assert_reserved, open_parts

CASES = [*EXERCISE.visible, *(case for seed in range(5) for case in _drawn(Random(seed)))]
BATCH = [case["_given"] for case in CASES if case.part == "least batch"]


def times(stages, b):
    return {name: sum(a + c * b for other, a, c in stages if other == name) for name, *_ in stages}


def searched(stages, item_bytes, buffers, limit):
    """All batches that fit, one by one."""
    for b in range(1, limit // (item_bytes * buffers) + 1):
        if max(times(stages, b).values()) == times(stages, b)["gpu"]:
            return b
    return None


def by_rate(stages, b):
    """The GPU's work in a long run, over the time that the slowest resource takes."""
    batches = 1000
    return batches * times(stages, b)["gpu"] / (batches * max(times(stages, b).values()))


@pytest.mark.parametrize("given", BATCH, ids=str)
def test_the_least_batch_is_that_of_a_search(given):
    assert least(*given) == searched(*given)


def test_a_search_is_as_right():
    assert not open_parts("least_batch", gpu_share=by_rate, least_batch=searched)


def test_drawn_cases_meet_answers_of_all_kinds():
    answers = [least(*given) for given in BATCH]
    assert {None, 1} < set(answers)
    assert len(set(answers)) > 6
    fits = [largest(*given[1:]) for given in BATCH]
    assert any(answer is None and searched(*given[:3], 10**5) for answer, given in zip(answers, BATCH, strict=True))
    assert any(answer not in (None, fit) for answer, fit in zip(answers, fits, strict=True))


def test_a_gpu_that_is_slowest_is_busy_all_the_time():
    assert share([("cpu", 1, 0), ("gpu", 2, 0)], 3) == 1


@pytest.mark.parametrize("data", ["x", [], [1, 2], {"a": 1}, 1.5, 0, float("inf")])
def test_what_is_no_answer_gets_a_sentence(data):
    for case in EXERCISE.visible:
        assert EXERCISE.verdict(case, {"data": data}).message


def test_the_references_refuse_while_a_learners_function_runs():
    stages = [("gpu", 1, 1)]
    assert_reserved(lambda: least(stages, 1, 1, 1), lambda: share(stages, 1), lambda: largest(1, 1, 1))
