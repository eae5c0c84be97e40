"""Is the tuner's choice the best? Every candidate is measured as well, on four models and limits.

python benchmarks/tuning.py
"""

from __future__ import annotations

import torch

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


def main() -> None:
    for title, sizes, tokens, batch, limit in SETTINGS:
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
        ran = sum(found.failed is None for found in everything.measured.values())
        lost = everything.seconds(choice.best) / everything.seconds(best) - 1
        print(f"{title}: {len(choice.fitting)} of {len(choice.forecasts)} candidates fit, {ran} were all measured")
        print(f"  chosen {choice.best}, of {len(choice.measured)} measured; best of all {best}: ", end="")
        print(f"the choice is {lost:.1%} slower")
        print(f"  predictions were off by at most {everything.prediction_error:.1%}, of the chosen few ", end="")
        print(f"{choice.prediction_error:.1%}\n", flush=True)


if __name__ == "__main__":
    main()
