"""Small models for runtime tests, and the unsplit model as their oracle."""

from __future__ import annotations

import time
from itertools import pairwise

import torch
from torch import nn

from pipelab.models import KeyedDropout
from pipelab.runtime import Pipeline, gradient_error, unsplit_gradients

BATCH = 64


class TupleLayer(nn.Module):
    """Takes and gives (activation, skip, positions): two floats that take gradients and one int that does not."""

    def __init__(self, width: int, index: int, dropout: float) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)
        self.drop = KeyedDropout(dropout, index)

    def forward(self, given):
        x, skip, positions = given
        x = x + self.drop(torch.tanh(self.mix(x) + positions[:, None] / 100))
        return x, skip + torch.sigmoid(self.gate(x)), positions


class First(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.grow = nn.Linear(5, width)

    def forward(self, x):
        h = self.grow(x)
        return h, h * 0.5, (x[:, 0] * 100).long()


class Last(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, 3)

    def forward(self, given):
        x, skip, _ = given
        return self.out(x * skip)


def tuple_net(layers: int = 16, width: int = 6, dropout: float = 0.0, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    inner = [TupleLayer(width, index, dropout) for index in range(layers - 2)]
    return nn.Sequential(First(width), *inner, Last(width)).double()


def mlp(layers: int = 8, width: int = 6, seed: int = 0) -> nn.Sequential:
    """Linear layers with a bend: 5 -> width -> ... -> 3, float64."""
    torch.manual_seed(seed)
    sizes = [5, *[width] * (layers - 1), 3]
    parts = [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in pairwise(sizes)]
    return nn.Sequential(*parts).double()


def data(batch: int = BATCH, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 5, dtype=torch.float64, generator=generator)
    y = torch.randn(batch, 3, dtype=torch.float64, generator=generator)
    return x, y


def mse(output, target):
    return ((output - target) ** 2).mean()


def check_step(model, schedule, *, loss=mse, inputs=None, targets=None, seed=3, tolerance=1e-10, **settings):
    """One step of a Pipeline gives the unsplit model's loss and gradients; returns pipeline and report."""
    if inputs is None:
        inputs, targets = data()
    pipeline = Pipeline(model, schedule, loss=loss, seed=seed, device="cpu", **settings)
    reference = unsplit_gradients(model, loss, inputs, targets, seed=seed, step=0)
    report = pipeline.step(inputs, targets)
    assert abs(report.loss - reference.loss) <= tolerance * max(1.0, abs(reference.loss))
    assert gradient_error(pipeline.gradients(), reference.gradients) <= tolerance
    return pipeline, report


class Work(nn.Module):
    """A given amount of CPU time, forward and backward: what an action costs is then known."""

    def __init__(self, forward: float) -> None:
        super().__init__()
        self.lin, self.seconds = nn.Linear(5, 5), forward

    def forward(self, x):
        if x.device.type == "cpu":
            end = time.thread_time() + self.seconds
            while time.thread_time() < end:
                pass
        return self.lin(x)
