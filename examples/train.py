"""Trains the 48-layer model through 1F1B on four processes, with torchrun or without: the same ten lines."""

import os

import torch

from pipelab import Pipeline, build_schedule
from pipelab.models import TransformerLM, next_byte_loss, text_batch

schedule = build_schedule("1f1b", devices=int(os.environ.get("WORLD_SIZE", 4)), microbatches=8)
optimizer = lambda named: torch.optim.AdamW([p for _, p in named], lr=1e-3)  # noqa: E731
with Pipeline(TransformerLM(), schedule, loss=next_byte_loss, optimizer=optimizer, launch="processes") as pipeline:
    for step in range(10):
        report = pipeline.step(*text_batch(step))
        if pipeline.rank == 0:
            print(f"step {step}: loss {report.loss:.3f}")
