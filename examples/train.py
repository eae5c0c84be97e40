"""Trains the 48-layer model on its text: a script to start from. Stop it at any moment, and go on with --resume.

python examples/train.py --steps 500                            # four processes; --launch threads: four threads
torchrun --nproc-per-node 4 examples/train.py --steps 500       # the same, on one node or on several
torchrun --nproc-per-node 8 examples/train.py --dp 2 --pp 2 --tp 2      # replicas, stages, parts of each layer
"""

import argparse
import math
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from pipelab import Pipeline, build_schedule, make_mesh, newest_checkpoint
from pipelab.models import TransformerLM, next_byte_loss, training_text

WARM_UP, RATE, CLIP, DROPOUT = 20, 1e-3, 1.0, 0.1


class Windows(Dataset):
    """(inputs, targets) from one window of a text after the other; targets are one byte further on."""

    def __init__(self, text: bytes, tokens: int) -> None:
        self.text, self.tokens = torch.frombuffer(bytearray(text), dtype=torch.uint8), tokens

    def __len__(self) -> int:
        return (len(self.text) - 1) // self.tokens

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor]:
        window = self.text[k * self.tokens : (k + 1) * self.tokens + 1].long()
        return window[:-1], window[1:]


def batches(data: Windows, told: argparse.Namespace, epoch: int = 0) -> list[Tensor]:
    """The windows of each batch of an epoch, shuffled by its number; the last one may be smaller.

    Each replica has m sequences of a batch at least.
    """
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(epoch))
    return [batch for batch in order.split(told.batch) if len(batch) >= told.microbatches * told.dp]


def shares(data: Windows, told: argparse.Namespace, replica: int, whole: list[Tensor]) -> DataLoader:
    """What a replica has of the batches."""
    own = [batch.tensor_split(told.dp)[replica].tolist() for batch in whole]
    # A generator of its own: a loader would draw from the common one, as plain dropout does.
    return DataLoader(data, batch_sampler=own, generator=torch.Generator())


def endless(
    data: Windows, told: argparse.Namespace, replica: int, epoch: int, first: int
) -> Iterator[tuple[dict, list[Tensor]]]:
    """(where to go on after this batch, a replica's share of it), epoch after epoch."""
    while True:
        for k, batch in enumerate(shares(data, told, replica, batches(data, told, epoch)[first:]), start=first + 1):
            yield {"epoch": epoch, "first": k}, batch
        epoch, first = epoch + 1, 0


def rate(step: int, steps: int) -> float:
    """Of RATE: up in a line, down in half a cosine."""
    return min((step + 1) / WARM_UP, 0.5 + 0.5 * math.cos(math.pi * min(step / steps, 1)))


def main(told: argparse.Namespace) -> None:
    """Train, and write down every ``told.every`` steps how it goes and what is needed to go on."""
    least = told.microbatches * told.dp
    if told.batch < least:
        raise SystemExit(
            f"--batch {told.batch} is too small for {told.microbatches} micro-batches in each of {told.dp} replicas; "
            f"take {least}, or fewer --microbatches"
        )
    found = newest_checkpoint(told.folder)
    if found and not told.resume:
        raise SystemExit(f"there is {found}: go on with --resume, or choose another --folder")
    text = told.text.read_bytes() if told.text else training_text()
    cut = len(text) * 19 // 20
    train, held_out = Windows(text[:cut], told.tokens), Windows(text[cut:], told.tokens)
    if len(held_out) < least:
        raise SystemExit(f"of {len(text)} bytes {len(held_out)} windows are kept back, fewer than micro-batches")
    mesh = make_mesh(told.dp, told.pp or 1, told.tp) if told.pp or told.dp * told.tp > 1 else None
    stages = told.devices or told.pp or (1 if mesh else int(os.environ.get("WORLD_SIZE", 4)))
    with Pipeline(
        TransformerLM(told.layers, width=told.width, heads=told.heads, tokens=told.tokens, dropout=DROPOUT),
        build_schedule(told.schedule, stages, told.microbatches, told.chunks),
        loss=next_byte_loss,
        optimizer=lambda named: torch.optim.AdamW([p for _, p in named], lr=RATE),
        lr_scheduler=lambda made: torch.optim.lr_scheduler.LambdaLR(made, lambda step: rate(step, told.steps)),
        clip_norm=CLIP,
        launch=told.launch,
        clock="wall",
        mesh=mesh,
    ) as pipeline:
        start = pipeline.load(found).data if found else {"epoch": 0, "first": 0}
        speaks, replica = os.environ.get("RANK", "0") == "0", pipeline.replica
        told.folder.mkdir(parents=True, exist_ok=True)
        losses = (told.folder / "losses.csv").open("a", buffering=1)
        steps = range(pipeline.step_number + 1, told.steps + 1)
        bar = tqdm(steps, initial=pipeline.step_number, total=told.steps, disable=not speaks)
        for step, (place, batch) in zip(bar, endless(train, told, replica, **start), strict=False):
            report = pipeline.step(*batch)
            if speaks:
                losses.write(f"{step},{report.loss}\n")
            if step % told.every == 0 or step == told.steps:
                pipeline.save(told.folder, data=place)
                whole = batches(held_out, told)
                sums = [
                    pipeline.evaluate(*batch).loss * len(all_of_it)
                    for batch, all_of_it in zip(shares(held_out, told, replica, whole), whole, strict=True)
                ]
                kept_back = sum(sums) / sum(map(len, whole))
                if speaks:
                    tqdm.write(f"step {step}: loss {report.loss:.4f}, held out {kept_back:.4f}")


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--folder", type=Path, default=Path("out/train"), help="of checkpoints and losses.csv")
    asked.add_argument("--resume", action="store_true", help="go on from the newest checkpoint, if there is one")
    asked.add_argument("--text", type=Path, help="a file to learn; default: Python's language reference")
    asked.add_argument("--launch", choices=["processes", "threads"], default="processes")
    asked.add_argument("--schedule", default="1f1b")
    asked.add_argument("--devices", type=int, help="of a pipeline without a mesh; default: one a process, or 4")
    asked.add_argument("--pp", type=int, help="a mesh under torchrun: devices of each pipeline")
    asked.add_argument("--dp", type=int, default=1, help="replicas, each with a share of each batch")
    asked.add_argument("--tp", type=int, default=1, help="processes that a device's layers are split over")
    numbers = {"microbatches": 8, "chunks": 1, "steps": 500, "every": 50, "batch": 64, "tokens": 32}
    for name, default in {**numbers, "layers": 48, "width": 64, "heads": 4}.items():
        asked.add_argument(f"--{name}", type=int, default=default)
    try:
        main(asked.parse_args())
    except KeyboardInterrupt:
        raise SystemExit("stopped; --resume goes on from the last checkpoint") from None
