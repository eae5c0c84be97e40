"""Does a planned cut gain what was predicted? Planned and even cut of two uneven models take turns (device clock).

python benchmarks/cuts.py
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from results import Table, main, parser
from torch import nn
from tqdm import tqdm

from pipelab import CostProfile, Pipeline, plan_cuts, profile_layers
from pipelab.models import TransformerLM, next_byte_loss, text_batch

P, M = 4, 8


def heavy_head() -> tuple[nn.Module, Any, Any, Any]:
    """The course's model with a vocabulary as large, beside its width, as that of real models."""
    model = TransformerLM()
    model.head = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 6000))
    return model, *text_batch(0, 64), next_byte_loss


class Block(nn.Module):
    """Two convolutions and a way around; where the channels change, the picture is halved."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        stride = 1 + (out != channels)
        self.way = nn.Sequential(
            nn.Conv2d(channels, out, 3, stride, 1),
            nn.GroupNorm(4, out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, 1, 1),
            nn.GroupNorm(4, out),
        )
        self.around = nn.Identity() if out == channels else nn.Conv2d(channels, out, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.way(x) + self.around(x))


def resnet() -> tuple[nn.Module, Any, Any, Any]:
    """Eighteen layers: the first ones have large pictures and large messages, the last ones many channels."""
    widths = [16] * 4 + [24] * 4 + [32] * 4 + [48] * 5
    blocks = [Block(a, b) for a, b in pairwise(widths)]
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1), *blocks, nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))
    )
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(32, 3, 32, 32, generator=random), torch.randint(0, 10, (32,), generator=random)
    return model, x, y, nn.functional.cross_entropy


def compare(title: str, made: tuple[nn.Module, Any, Any, Any], rounds: int) -> dict[str, Any]:
    model, x, y, loss = made
    batch = len(x)
    layers = profile_layers(model, x, y, loss=loss, sizes=(batch // M // 2, batch // M), repeats=9, progress=False)
    begun = time.perf_counter()
    plan = plan_cuts(layers, P, microbatches=M, batch=batch)
    planned = time.perf_counter() - begun
    pipelines = {
        name: Pipeline(model, plan.schedule, loss=loss, cuts=cuts, window=3)
        for name, cuts in (("even", None), ("planned", plan.cuts))
    }
    found: dict[str, list[float]] = {name: [] for name in pipelines}
    for number in range(rounds):
        for name in list(pipelines)[:: 1 if number % 2 else -1]:
            for _ in range(3):
                report = pipelines[name].step(x, y)
            found[name].append(report.timeline.makespan)
    measured = median(1 - b / a for a, b in zip(found["even"], found["planned"], strict=True))
    return {
        "model": title,
        "layers in each stage": " ".join(map(str, plan.sizes)),
        "predicted gain": plan.gain,
        "measured gain": measured,
        "balance, even": sum(plan.even.busy) / P / max(plan.even.busy),
        "balance, planned": plan.balance,
        "planned in": f"{planned:.2f} s",
    }


def large() -> dict[str, Any]:
    """How long a plan for 200 layers on 16 devices takes: the profile is the first model's, over and over."""
    one = CostProfile.shipped().cut(4)
    parts = tuple(one[k % 4].__class__(**vars(one[k % 4])) for k in range(200))
    whole = parts[0]
    profile = CostProfile(1, {1: (whole,), 200: parts}, CostProfile.shipped().link)
    begun = time.perf_counter()
    plan = plan_cuts(profile, 16, microbatches=32, batch=64)
    return {"layers": 200, "devices": 16, "m": 32, "seconds": time.perf_counter() - begun, "tables": plan.tries}


def run(options: argparse.Namespace) -> list[Table]:
    models = (("48 layers, 6,000 scores a token", heavy_head), ("16 residual blocks", resnet))
    rounds = 3 if options.quick else 9
    rows = [compare(title, make(), rounds) for title, make in tqdm(models, desc="cuts", leave=False)]
    shares = ("predicted gain", "measured gain")
    note = f"1F1B, p = {P}, m = {M}. A gain is the part of the even cut's makespan that the planned one saves."
    form = {**dict.fromkeys(shares, ".1%"), "balance, even": ".2f", "balance, planned": ".2f"}
    return [
        Table("Planned cuts", rows, note, form),
        Table("A large plan", [large()], "On one core.", {"seconds": ".2f"}),
    ]


def arguments() -> argparse.ArgumentParser:
    return parser(__doc__)


if __name__ == "__main__":
    main(run, arguments())
