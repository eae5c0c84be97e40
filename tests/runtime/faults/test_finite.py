"""The first value that is nan or infinite is found in the action that makes it; else the report says so of a loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pipelab import NonFiniteError, Pipeline, Schedule, StageError, build_schedule
from pipelab.runtime.faults.finite import describe_non_finite
from tests.runtime.small import data, mse

SPLIT = "0F0, 0F1, 0W0, 0W1\n1F0, 1F1, 1I0, 1W0, 1I1, 1W1\n2F0, 2F1, 2I0, 2W0, 2I1, 2W1"


class Spoils(nn.Module):
    """Hands on what it gets, and on its ``nth`` call spoils a value, or the gradient of one."""

    def __init__(self, where: str, nth: int) -> None:
        super().__init__()
        self.where, self.nth, self.calls = where, nth, 0
        self.weight = nn.Parameter(torch.ones(6, dtype=torch.float64))

    def forward(self, x):
        self.calls += 1
        y = x * self.weight
        if self.calls == self.nth:
            if self.where == "F":
                y = y.clone()
                y[0, 2] = math.inf
            elif self.where == "weight":
                weight = self.weight * 1
                weight.register_hook(lambda grad: grad * math.nan)
                y = x * weight
            else:
                x.register_hook(lambda grad: grad * math.nan)
        return y


def pipeline(where, nth=2, table=None, **told):
    model = nn.Sequential(nn.Linear(5, 6).double(), Spoils(where, nth), nn.Linear(6, 3).double())
    return Pipeline(model, table or build_schedule("1f1b", 3, 2), loss=mse, **told)


@pytest.mark.parametrize("launch", ["threads", "processes"])
def test_an_activation_is_named_with_its_place(launch):
    # the check of what fits runs on a copy
    with pipeline("F", launch=launch, check_finite=True) as made, pytest.raises(NonFiniteError) as caught:
        made.step(*data())
    assert isinstance(caught.value, StageError)
    assert (caught.value.device, caught.value.stage, caught.value.microbatch) == (1, 1, 1)
    assert "action 1F1, micro-batch 1: the activation that it gives is not finite in 1 of 192 values" in str(
        caught.value
    )
    assert "the first at [0, 2]: inf" in str(caught.value)


@pytest.mark.parametrize("table", [None, SPLIT])
@pytest.mark.parametrize(
    "where, what", [("input", "the gradient of its input is not"), ("weight", r"the gradient of '.*weight' is not")]
)
def test_a_gradient_is_found_in_the_backward_that_makes_it(where, what, table):
    schedule = None if table is None else Schedule.from_csv(table, name="split")
    op = "B" if table is None else "I" if where == "input" else "W"
    with pytest.raises(NonFiniteError, match=rf"stage 1, action 1{op}1, micro-batch 1: {what}"):
        pipeline(where, table=schedule, check_finite=True).step(*data())


def test_a_loss_and_an_input_are_named():
    x, y = data()
    with pytest.raises(
        NonFiniteError, match=r"stage 0, action 0F1, micro-batch 1: an input of the batch is not finite"
    ):
        pipeline("F", nth=-1, check_finite=True).step(torch.cat([x[:-1], x[-1:] * math.nan]), y)
    with pytest.raises(NonFiniteError, match=r"stage 2, action 2F0, micro-batch 0: the loss is inf"):
        pipeline("F", nth=-1, check_finite=True).step(x, y * 1e300)


def test_without_the_check_the_report_says_that_the_loss_is_not_finite():
    x, y = data()
    report = pipeline("F", nth=-1).step(x, y * 1e300)
    assert not report.finite and "not finite" in repr(report) and "check_finite=True" in repr(report)
    good = pipeline("F", nth=-1).step(x, y)
    assert good.finite and "not finite" not in repr(good)


def test_whole_numbers_and_sparse_tensors_are_looked_at_too():
    assert describe_non_finite(torch.arange(3)) == ""
    assert describe_non_finite(torch.tensor(math.nan)) == "is nan"
    assert "1 of 2 values" in describe_non_finite(torch.sparse_coo_tensor([[0, 4]], [1.0, math.inf], (9,)))
