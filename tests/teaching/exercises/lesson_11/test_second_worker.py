"""That the check's best numbers are those of a search through all, and what it accepts."""

from itertools import product
from random import Random

import pytest

from pipelab.teaching.exercises.lesson_11.second_worker import EXERCISE, _drawn, best, profit, rate
from tests.teaching.exercises.trying import assert_reserved, open_parts

CASES = [*EXERCISE.visible, *(case for seed in range(5) for case in _drawn(Random(seed)))]
BEST = [case["_given"] for case in CASES if case.part == "best numbers"]


def searched(seconds, prices, worth, most):
    """All numbers of workers, one by one."""
    every = product(range(1, most + 1), repeat=len(seconds))

    def brings(workers):
        return worth / max(t / w for t, w in zip(seconds, workers, strict=True)) - sum(
            p * w for p, w in zip(prices, workers, strict=True)
        )

    return max(every, key=brings)


@pytest.mark.parametrize("given", BEST, ids=str)
def test_the_best_numbers_are_those_of_a_search_through_all(given):
    *facts, most = given
    assert profit(*facts, best(*given)) == pytest.approx(profit(*facts, searched(*facts, most)))


def test_another_search_and_other_sums_are_as_right():
    assert not open_parts(
        "second_worker",
        throughput=lambda seconds, workers: 1 / max(t / w for t, w in zip(seconds, workers, strict=True)),
        gain=lambda seconds, workers, stage, prices, worth: (
            profit_by_hand(seconds, prices, worth, [w + (s == stage) for s, w in enumerate(workers)])
            - profit_by_hand(seconds, prices, worth, workers)
        ),
        best_workers=searched,
    )


def profit_by_hand(seconds, prices, worth, workers):
    paid = sum(p * w for p, w in zip(prices, workers, strict=True))
    return worth / max(t / w for t, w in zip(seconds, workers, strict=True)) - paid


def test_some_flows_want_one_worker_each_and_others_several():
    answers = {tuple(best(*given)) for given in BEST}
    assert any(max(workers) == 1 for workers in answers)
    assert any(max(workers) > 2 for workers in answers)
    assert any(workers.count(max(workers)) > 1 and max(workers) > 1 for workers in answers)


@pytest.mark.parametrize("data", ["x", None, [], [1, 2, 3, 4, 5, 6], {"a": 1}, [1.5], [0], float("inf")])
def test_what_is_no_answer_gets_a_sentence(data):
    for case in EXERCISE.visible:
        assert EXERCISE.verdict(case, {"data": data}).message


def test_the_references_refuse_while_a_learners_function_runs():
    assert_reserved(lambda: rate([1], [1]), lambda: profit([1], [1], 1, [1]), lambda: best([1], [1], 1, 1))
