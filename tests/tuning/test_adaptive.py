"""Layers move when a device has become slower or memory short, and training stays what it is."""

import re
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pipelab import Adaptive, ConfigurationError, Costs, Monitor, Pipeline, build_schedule, profile_layers, split_model
from pipelab.runtime.device import clocks
from tests.runtime.small import Work, mse

TABLE = build_schedule("1f1b", 3, 4)
LAYERS = 12
SPENT = threading.local()


class Costing(nn.Module):
    """A layer whose forward takes so many seconds on a CPU clock that only such layers move."""

    def __init__(self, seconds):
        super().__init__()
        self.lin, self.seconds = nn.Linear(5, 5), seconds

    def forward(self, x):
        SPENT.seconds = spent() + self.seconds * (1 + len(x))
        return torch.tanh(self.lin(x))


def spent():
    return getattr(SPENT, "seconds", 0.0)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(clocks, "time", SimpleNamespace(perf_counter=time.perf_counter, thread_time=spent))


def layers(kind=Costing, seconds=0.001):
    torch.manual_seed(0)
    return nn.Sequential(*(kind(seconds) for _ in range(LAYERS))).double()


def batch(step, size=8):
    torch.manual_seed(step)
    return torch.randn(size, 5).double(), torch.randn(size, 5).double()


def adam(named):
    return torch.optim.Adam([p for _, p in named], lr=0.01)


def made(model=None, table=TABLE, **settings):
    return Pipeline(model or layers(), table, **{"loss": mse, "optimizer": adam, "device": "cpu"} | settings)


def profiled(**settings):
    how = {"loss": mse, "optimizer": adam, "progress": False, "sizes": (1, 2), "repeats": 1}
    return profile_layers(layers(), *batch(0), **how | settings)


def unsplit(model, steps):
    """Losses of so many steps."""
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.01), []
    for step in range(steps):
        optimizer.zero_grad()
        inputs, targets = batch(step)
        loss = mse(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def same_weights(pipeline, model):
    trained = pipeline.state_dict()
    return max((trained[name] - value).abs().max().item() for name, value in model.state_dict().items()) <= 1e-10


def test_layers_leave_a_device_that_has_become_slower_and_training_is_that_of_the_unsplit_model():
    whole, told, spans, losses = layers(), [], [], []
    pipeline = made()
    adaptive = Adaptive(pipeline, profiled(), every=3, told=told.append)
    for step in range(20):
        if step == 5:
            assert adaptive.history == [] and told == []
            pipeline.speeds = [1, 0.5, 1]
        report = adaptive.step(*batch(step))
        losses.append(report.loss)
        spans.append(report.timeline.makespan)
    assert losses == pytest.approx(unsplit(whole, 20), abs=1e-10)
    assert same_weights(pipeline, whole)
    (moved,) = adaptive.history
    assert (moved.step, moved.moved, moved.why) == (6, True, "device 1 takes 2.0 times as long per layer as before")
    assert moved.before.sizes == (4, 4, 4) and moved.after.sizes == (5, 2, 5)
    assert moved.before.measured == pytest.approx(moved.before.predicted) == spans[6]
    assert moved.after.measured == pytest.approx(moved.after.predicted) == spans[-1]
    assert spans[4] < spans[-1] < 0.75 * spans[6]
    (line,) = told
    assert re.fullmatch(
        r"step 6: device 1 takes 2\.0 times as long per layer as before; layers 4 4 4 -> 5 2 5; predicted [\d.]+ m?s a "
        r"step instead of [\d.]+ m?s",
        line,
    )
    assert str(moved).startswith(line) and "; measured" in str(moved)
