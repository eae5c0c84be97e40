"""What the check of a linear layer's two halves accepts."""

import pytest
import torch

from pipelab.teaching.exercises.lesson_07.split_linear import EXERCISE
from tests.teaching.exercises.trying import messages, open_parts


def flat(x, gradient):
    return x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])


def by_products(kept):
    x, gradient = kept
    return gradient.T @ x, gradient.sum(0)


def by_einsum(kept):
    return torch.einsum("...o,...i->oi", kept["g"], kept["x"]), kept["g"].flatten(0, -2).sum(0)


def row_by_row(kept):
    rows = list(zip(*flat(*kept), strict=True))
    return sum(torch.outer(g, x) for x, g in rows), sum(g for _, g in rows)


@pytest.mark.parametrize(
    ("upstream", "keep", "later"),
    [
        (lambda g, w: g.matmul(w), flat, by_products),
        (lambda g, w: torch.einsum("...o,oi->...i", g, w), lambda x, g: {"x": x, "g": g}, by_einsum),
        (lambda g, w: torch.nn.functional.linear(g, w.T), lambda x, g: [x.clone(), g], row_by_row),
        (
            lambda g, w: (g[..., None] * w).sum(-2),
            lambda x, g: [t.transpose(0, -1).clone() for t in flat(x, g)],
            lambda kept: (kept[1] @ kept[0].T, kept[1].sum(1)),
        ),
    ],
    ids=["rows", "einsum", "outer products", "transposed copies"],
)
def test_other_ways_to_split_are_as_right(upstream, keep, later):
    assert not open_parts(
        "split_linear", backward_input=lambda x, w, b, g: (upstream(g, w), keep(x, g)), backward_weight=later
    )


def by_autograd(x, weight, bias, gradient):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(torch.nn.functional.linear(x, weight, bias), x, gradient)[0], (x, gradient)


def test_a_forward_for_autograd_is_one_product_too_many():
    assert open_parts("split_linear", backward_input=by_autograd, backward_weight=row_by_row) == {"I"}
    (said,) = messages("split_linear", backward_input=by_autograd, backward_weight=row_by_row)
    assert "computes 2 matrix products" in said


def test_numbers_of_32_bits_are_not_enough():
    def rough(x, weight, bias, gradient):
        return (gradient.float() @ weight.float()).double(), (x, gradient)

    assert open_parts("split_linear", backward_input=rough, backward_weight=row_by_row) == {"I"}


def test_what_belongs_to_the_caller_stays_as_it_is():
    def changing(x, weight, bias, gradient):
        return gradient @ weight, (x, gradient.mul_(1.5))

    said = messages("split_linear", backward_input=changing, backward_weight=row_by_row)
    assert all("changed its arguments" in one for one in said)
    assert len(said) == 4


@pytest.mark.parametrize("data", [None, "x", [], [[]], [{}], [{"input": 1}]])
def test_what_is_no_record_of_the_asker_gets_a_sentence(data):
    for case in EXERCISE.visible:
        assert "not all micro-batches came back" in EXERCISE.verdict(case, {"data": data}).message
