"""Does a planned cut gain what was predicted? Planned and even cut of two uneven models take turns (device clock).

python benchmarks/cuts.py
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from results import Table, main, parser
from torch import nn
from tqdm import tqdm

from pipelab import CostProfile, Pipeline, plan_cuts, profile_layers, simulate
from pipelab.models import TransformerLM, next_byte_loss, text_batch
from pipelab.models.cut import even_cuts
from pipelab.tuning.planning.layers import Layers

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
    """The cuts are planned once; what each gives is predicted from a new profile in every round, beside its steps."""
    model, x, y, loss = made
    batch = len(x)

    def profile(repeats: int) -> CostProfile:
        sizes = (batch // M // 2, batch // M)
        return profile_layers(model, x, y, loss=loss, sizes=sizes, repeats=repeats, progress=False)

    layers = profile(9)
    begun = time.perf_counter()
    plan = plan_cuts(layers, P, microbatches=M, batch=batch)
    planned = time.perf_counter() - begun
    cuts = {"even": even_cuts([1] * plan.layers, P), "planned": plan.cuts}
    pipelines = {name: Pipeline(model, plan.schedule, loss=loss, cuts=given, window=3) for name, given in cuts.items()}
    predicted, measured, busy = [], [], []
    for number in range(rounds):
        now = Layers(profile(3))
        before = {
            name: simulate(plan.schedule, now.cut((0, *given, plan.layers), P).costs(batch), check=False)
            for name, given in cuts.items()
        }
        found: dict[str, list[float]] = {name: [] for name in pipelines}
        for turn in range(8):
            for name in list(pipelines)[:: 1 if (number + turn) % 2 else -1]:
                found[name].append(pipelines[name].step(x, y).timeline.makespan)
        predicted.append(1 - before["planned"].makespan / before["even"].makespan)
        measured.append(1 - median(found["planned"][2:]) / median(found["even"][2:]))
        busy.append([sum(one.busy) / P / max(one.busy) for one in before.values()])
    return {
        "model": title,
        "layers in each stage": " ".join(map(str, plan.sizes)),
        "predicted gain": median(predicted),
        "measured gain": median(measured),
        "measured, middle half": " to ".join(f"{part:.1%}" for part in quantiles(measured, n=4)[::2]),
        "balance, even": median(one[0] for one in busy),
        "balance, planned": median(one[1] for one in busy),
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
