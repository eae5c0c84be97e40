"""The reference of schedules without a flush, against plain loops."""

from __future__ import annotations

import torch
from torch import nn

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
