"""``pipelab demo``: the worked example through all four schedules, then some training."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from pipelab.commands.table import format_bytes, format_time, format_values, render_table
from pipelab.models import dropout_key, next_byte_loss, text_batch
from pipelab.runtime import Pipeline
from pipelab.schedules import build_schedule
from pipelab.teaching.experiment import Experiment, Setting, prepare, run_experiment
from pipelab.view import plot_schedules

__all__ = ["add_arguments", "demo", "run"]

CASES = (
    ("naive", 1, False),
    ("gpipe", 1, False),
    ("gpipe", 1, True),
    ("1f1b", 1, False),
    ("interleaved", 2, False),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--plot", type=Path, default=Path("out/demo.png"), metavar="FILE", help="default out/demo.png")
    parser.add_argument("--training-steps", type=int, default=20, metavar="N", help="default 20")


def run(options: argparse.Namespace) -> int:
    """Show all."""
    demo(options.plot, training_steps=options.training_steps)
    return 0


def demo(picture: Path, *, training_steps: int = 20, setting: Setting | None = None) -> None:
    """Print a table, save a picture, train."""
    setting = Setting(dtype="float64", steps=6) if setting is None else setting
    p = m = 4
    print(
        f"{setting.layers} transformer layers on p = {p} devices, a batch of {setting.batch} text sequences as "
        f"m = {m} micro-batches, in {setting.dtype}\n"
    )
    prepared = prepare(setting)
    found: dict[str, Experiment] = {}
    for name, chunks, recompute in tqdm(CASES, desc="schedules", unit="schedule", leave=False):
        schedule = build_schedule(name, p, m, chunks, recompute=recompute)
        label = name + (" + R" if recompute else "") + (f" v={chunks}" if chunks > 1 else "")
        found[label] = run_experiment(prepared, schedule, m)
    print(_table(found))
    print(
        "\nBubble and makespan: predicted for a balanced pipeline from a profile of one micro-batch / measured\n"
        "with the device clock (each slot's median cost, composed as if each stage had its own device).\n"
        "In flight and peak: per device 0..3. Error: max |g - g*| / max |g*| against the unsplit model.\n"
        "+ R: GPipe with recomputation, as its paper has it.\n"
    )
    titles = list(found)
    saved = plot_schedules([e.measured for e in found.values()], titles=titles)
    picture.parent.mkdir(parents=True, exist_ok=True)
    saved.save(picture)
    print(f"picture: {picture}\n")
    _train(setting, training_steps)


def _table(found: dict[str, Experiment]) -> str:
    header = ["schedule", "bubble", "makespan", "sequences in flight", "peak activation bytes", "messages", "error"]
    rows = []
    for label, e in found.items():
        peaks = [format_bytes(value).removesuffix(" MB") for value in e.report.peak_activation_bytes]
        rows.append(
            [
                label,
                f"{e.predicted.bubble_fraction:.1%} / {e.measured.bubble_fraction:.1%}",
                f"{format_time(e.predicted.makespan, e.predicted.unit)} / "
                f"{format_time(e.measured.makespan, e.measured.unit)}",
                format_values(e.measured.peak_sequences),
                " ".join(peaks) + " MB",
                str(e.measured.message_count),
                f"{e.max_gradient_error:.0e}",
            ]
        )
    return render_table(header, rows)


def _train(setting: Setting, steps: int) -> None:
    """Train the same model twice, through 1F1B and unsplit, and compare the losses step for step."""
    rate = 1e-3
    split, whole = setting.model(), setting.model()
    pipeline = Pipeline(
        split,
        build_schedule("1f1b", devices=4, microbatches=4),
        loss=next_byte_loss,
        optimizer=lambda named: torch.optim.AdamW([p for _, p in named], lr=rate),
        seed=setting.seed,
    )
    optimizer = torch.optim.AdamW(whole.parameters(), lr=rate)
    losses, worst = [], 0.0
    with tqdm(range(steps), desc="training through 1f1b", unit="step") as bar:
        for step in bar:
            inputs, targets = text_batch(step, setting.batch, setting.tokens, setting.seed)
            report = pipeline.step(inputs, targets)
            optimizer.zero_grad()
            with dropout_key(setting.seed, step):
                loss = next_byte_loss(whole(inputs), targets)
            loss.backward()
            optimizer.step()
            assert report.loss is not None
            losses.append(report.loss)
            worst = max(worst, abs(report.loss - float(loss.detach())))
            bar.set_postfix(loss=f"{report.loss:.3f}", difference=f"{worst:.0e}")
    print(
        f"{steps} steps through 1F1B: loss {losses[0]:.3f} -> {losses[-1]:.3f}; the unsplit model's loss differs by at "
        f"most {worst:.1e} in any step"
    )
