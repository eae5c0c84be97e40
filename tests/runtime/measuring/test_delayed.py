"""The reference of schedules without a flush, against plain loops."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pipelab import Pipeline, build_schedule
from pipelab.runtime.measuring.delayed import delayed_training
from tests.runtime.small import mse


def sgd(named):
    return torch.optim.SGD([p for _, p in named], lr=0.1)


def data(count):
    return [(torch.randn(3, 4).double(), torch.randn(3, 4).double()) for _ in range(count)]


def test_without_delay_it_is_plain_training():
    torch.manual_seed(0)
    model, batches = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).double(), data(5)
    stages = [["0.weight", "0.bias"], ["1.weight", "1.bias"]]
    history = delayed_training(model, stages, sgd, mse, batches, lambda s, i: i)
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    for (x, y), found in zip(batches, history[1:], strict=True):
        plain.zero_grad()
        mse(model(x), y).backward()
        plain.step()
        assert all(torch.equal(p, found[name]) for name, p in model.named_parameters())


def test_a_version_of_two_buffers_is_the_formula_of_its_paper():
    """W(t+1) = W(t) - lr * gradient(W(t-1)), of the mean over the batch; W(-1) = W(0)."""
    torch.manual_seed(0)
    model, m = nn.Linear(4, 4, bias=False).double(), 2
    batches = data(6 * m)
    history = delayed_training(model, [["weight"]], sgd, mse, batches, lambda s, i: max(i // m - 1, 0), m)
    weights = [model.weight.detach().clone()] * 2  # W(-1), W(0)
    for t in range(6):
        before = weights[t].clone().requires_grad_()
        sum(mse(x @ before.T, y) / m for x, y in batches[t * m : (t + 1) * m]).backward()
        weights.append(weights[t + 1] - 0.1 * before.grad)
    for found, true in zip(history, weights[1:], strict=True):
        torch.testing.assert_close(found["weight"], true, rtol=0, atol=1e-14)


# ---- with no correction by hand it is what a pipeline computes -------------------------------------------------------


class HalfUsed(nn.Module):
    """A layer with a parameter that it does not use, and one that is frozen."""

    def __init__(self):
        super().__init__()
        self.layer, self.unused = nn.Linear(4, 4), nn.Parameter(torch.ones(4))
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)

    def forward(self, x):
        return torch.tanh(self.layer(x) * self.frozen)


def decaying(named):
    return torch.optim.SGD([p for _, p in named], lr=0.1, momentum=0.9, weight_decay=0.1)


def classes(count, size):
    """Batches with class numbers, of which every third sequence's, and a run of them, are ignored."""
    given = [(torch.randn(size, 4).double(), torch.randint(0, 4, (size,))) for _ in range(count)]
    for _, y in given:
        y[::3] = y[2:6] = -100
    return given


def plain(count, size):
    return [(torch.randn(size, 4).double(), torch.randn(size, 4).double()) for _ in range(count)]


def ignores(output, target):
    return nn.functional.cross_entropy(output, target, ignore_index=-100)


LOSSES = {
    "mean": (mse, plain, {}),
    "sum": (nn.MSELoss(reduction="sum"), plain, {}),
    "ignored": (nn.CrossEntropyLoss(), classes, {}),
    "own terms": (ignores, classes, {"loss_terms": lambda y: float((y != -100).sum())}),
}


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("rule", ["pipedream", "2bw"])
def test_it_is_what_a_pipeline_computes(rule, kind):
    """10 sequences in micro-batches of 3, 3, 2 and 2."""
    torch.manual_seed(0)
    loss, make, options = LOSSES[kind]
    model, m = nn.Sequential(HalfUsed(), HalfUsed()).double(), 4
    start, given = copy.deepcopy(model), make(5, 10)
    with Pipeline(model, build_schedule(rule, 2, m), loss=loss, optimizer=decaying, **options) as pipeline:
        for x, y in given:
            pipeline.step(x, y)
    sizes = build_schedule(rule, 2, m).microbatch_sizes(10)
    pieces = [pair for x, y in given for pair in zip(x.split(sizes), y.split(sizes), strict=True)]
    stages = [[name for name, _ in start.named_parameters() if name.startswith(f"{s}.")] for s in range(2)]
    version = (lambda s, i: max(i // m - 1, 0)) if rule == "2bw" else (lambda s, i: max(i - (1 - s), 0))
    every = m if rule == "2bw" else 1
    true = delayed_training(start, stages, decaying, loss, pieces, version, every, **options)[-1]
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), true[name], rtol=0, atol=1e-12)
    assert torch.equal(model[0].unused, start[0].unused), "weight decay touches only what has a gradient"
