"""What the check of reduced gradients accepts, and that its cases tell norms and weights apart."""

import math
from random import Random

import pytest
import torch

from pipelab.teaching.exercises.lesson_10.uneven_replicas import EXERCISE, _drawn, _norm, unsplit
from tests.teaching.exercises.trying import assert_reserved, messages, open_parts

CASES = [*EXERCISE.visible, *(case for seed in range(4) for case in _drawn(Random(seed)))]


def by_sums(gradients, targets, limit):
    """Sums of losses first, one division at the end, and PyTorch's own clipping."""
    count = torch.tensor([int((t >= 0).sum()) for t in targets])
    stages = []
    for p, stage in enumerate(gradients[0]):
        ones = [torch.stack([g[p][k] for g in gradients]) for k in range(len(stage))]
        stages.append([torch.tensordot(count.double(), one, 1) / count.sum() for one in ones])
    held = [torch.nn.Parameter(one) for stage in stages for one in stage]
    for parameter in held:
        parameter.grad = parameter.detach().clone()
    if math.isfinite(limit):
        torch.nn.utils.clip_grad_norm_(held, limit)
    given = iter(held)
    return tuple([next(given).grad for _ in stage] for stage in stages)


def test_sums_of_losses_and_pytorchs_clipping_are_as_right():
    assert not open_parts("uneven_replicas", reduce_gradients=by_sums)


def test_numbers_of_32_bits_are_not_enough():
    def rough(gradients, targets, limit):
        return [[one.float() for one in stage] for stage in by_sums(gradients, targets, limit)]

    assert {"uneven replicas", "padding"} <= open_parts("uneven_replicas", reduce_gradients=rough)


def test_limits_bind_in_some_cases_and_not_in_others():
    for cases in (EXERCISE.visible, CASES[len(EXERCISE.visible) :]):
        limits = [case["_limit"] for case in cases if case["_limit"]]
        norms = [_norm(unsplit(case)) for case in cases if case["_limit"]]
        binds = [math.isclose(norm, limit) for norm, limit in zip(norms, limits, strict=True)]
        assert any(binds)
        assert not all(binds)


def test_terms_are_uneven_where_they_should_be_and_none_in_some_replicas():
    padded = [case for case in CASES if case.part == "padding"]
    assert any(0 in case["_terms"] for case in padded)
    assert all(any(case["_terms"]) for case in padded)


@pytest.mark.parametrize("data", ["x", None, 3, [], [[1], [2]], [[{"tensor": [1]}] * 4, []], {"a": 1}])
def test_what_is_no_gradient_gets_a_sentence(data):
    for case in EXERCISE.visible:
        assert "should return" in EXERCISE.verdict(case, {"data": data}).message


def test_a_gradient_that_is_not_finite_gets_a_sentence():
    def divided(gradients, targets, limit):
        return [[one / 0 for one in stage] for stage in gradients[0]]

    (said, *_) = messages("uneven_replicas", reduce_gradients=divided)
    assert "divided by 0" in said


def test_the_reference_refuses_while_a_learners_function_runs():
    assert_reserved(lambda: unsplit(EXERCISE.visible[0]))
