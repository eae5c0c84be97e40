"""Small pipelines that are watched."""

from __future__ import annotations

import torch
from torch import nn

from pipelab import Monitor, Pipeline, build_schedule

BATCH = torch.arange(16 * 4, dtype=torch.float64).reshape(16, 4) / 64, torch.zeros(16, 4, dtype=torch.float64)


class Work(nn.Module):
    """A layer that multiplies so often."""

    def __init__(self, times):
        super().__init__()
        self.times, self.linear, self.big = times, nn.Linear(4, 4).double(), torch.ones(64, 64, dtype=torch.float64)

    def forward(self, x):
        for _ in range(self.times):
            self.big @ self.big
        return self.linear(x)


def watched(monitor, *, works=None, work=(20, 20, 20), m=4, steps=0, name="1f1b", **settings):
    """A pipeline with a stage for each of ``works`` (or made to do so much ``work``), after so many steps."""
    torch.manual_seed(0)
    model = nn.Sequential(*(works or [Work(times) for times in work]))
    table = build_schedule(name, len(model), m)
    made = Pipeline(model, table, loss=nn.functional.mse_loss, device="cpu", monitor=monitor, **settings)
    for _ in range(steps):
        made.step(*BATCH)
    return made


def after(steps, monitor=None, **settings):
    """A monitor that has seen so many steps."""
    monitor = monitor or Monitor()
    with watched(monitor, steps=steps, **settings):
        return monitor
