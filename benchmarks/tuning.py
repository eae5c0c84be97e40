"""Is the tuner's choice the best? Every candidate is measured as well, on four models and limits (one with --quick).

python benchmarks/tuning.py
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from results import Table, main, parser
from tqdm import tqdm

from pipelab import tune
from pipelab.models import TransformerLM, next_byte_loss, text_batch

MICROBATCHES = (1, 4, 8, 12, 16, 32)
SETTINGS = (
    ("48 layers, width 64, batch 64, no limit", {}, 32, 64, None),
    ("48 layers, width 64, batch 64, 40 MB", {}, 32, 64, "40MB"),
    ("24 layers, width 32, 16 tokens, batch 96, 5 MB", {"layers": 24, "width": 32, "tokens": 16}, 16, 96, "5MB"),
    ("16 layers, width 192, batch 32, 120 MB", {"layers": 16, "width": 192}, 32, 32, "120MB"),
)


def adamw(named):
    return torch.optim.AdamW([p for _, p in named], lr=1e-3)


def compare(title: str, sizes: dict[str, int], tokens: int, batch: int, limit: str | None) -> dict[str, Any]:
    model, data = TransformerLM(**sizes), text_batch(0, batch, tokens)
    settings = {
        "loss": next_byte_loss,
        "optimizer": adamw,
        "memory_limit": limit,
        "microbatches": [m for m in MICROBATCHES if m <= batch],
        "device": "cpu",
    }
    choice = tune(model, *data, **settings)
    everything = tune(model, *data, profile=choice.profile, measure=1000, rounds=3, steps=1, **settings)
    best = everything.ranked[0]
    return {
        "model": title,
        "candidates": len(choice.forecasts),
        "fit": len(choice.fitting),
        "ran": sum(found.failed is None for found in everything.measured.values()),
        "chosen": choice.best,
        "of measured": len(choice.measured),
        "best of all": best,
        "chosen slower by": everything.seconds(choice.best) / everything.seconds(best) - 1,
        "prediction off by at most": everything.prediction_error,
        "of the chosen few": choice.prediction_error,
    }


def run(options: argparse.Namespace) -> list[Table]:
    settings = SETTINGS[:1] if options.quick else SETTINGS
    rows = [compare(*setting) for setting in tqdm(settings, desc="tuning", leave=False)]
    shares = ("chosen slower by", "prediction off by at most", "of the chosen few")
    note = "The tuner predicts all, measures a few and chooses; here all that fit were measured as well."
    return [Table("The tuner's choice", rows, note, dict.fromkeys(shares, ".1%"))]


def arguments() -> argparse.ArgumentParser:
    return parser(__doc__)


if __name__ == "__main__":
    main(run, arguments())
