"""Predicted against measured: step time by the device clock, and peak activation bytes, on the 48-layer model.

The prediction comes from a cost profile that another process took, of micro-batch sizes that no measured step has.

python benchmarks/fidelity.py [--steps 5] [--plot fidelity.png]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from alternate import Spread
from results import Table, finish, parser
from tqdm import tqdm

from pipelab import Pipeline, Schedule, build_schedule
from pipelab.models import TransformerLM, next_byte_loss, text_batch
from pipelab.tuning import CostProfile, profile_costs

BATCH, DEVICES, STEPS = 64, 4, 5
MICROBATCHES = (1, 2, 4, 8, 12, 16, 20, 32, 64)
SIZES = (7, 10, 14, 20, 28, 40, 56)  # the steps below run micro-batches of 1 to 6, 8, 16, 32 and 64 sequences


def cases(quick: bool) -> list[Schedule]:
    several = (8,) if quick else MICROBATCHES
    found = [build_schedule("naive", DEVICES, 1)]  # its one micro-batch is the whole batch, whatever m
    found += [build_schedule("gpipe", DEVICES, m, recompute=again) for again in (False, True) for m in several]
    found += [build_schedule("1f1b", DEVICES, m) for m in several]
    return found + [build_schedule("interleaved", DEVICES, m, 2) for m in several if m % DEVICES == 0]


def take_profile(sizes: Sequence[int]) -> CostProfile:
    """A profile from a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile.json"
        subprocess.run([sys.executable, __file__, "--profile-to", str(path), "--sizes", *map(str, sizes)], check=True)
        return CostProfile.load(path)


def measure(profile: CostProfile, schedule: Schedule, steps: int) -> dict[str, Any]:
    predicted = profile.predict(schedule, BATCH)
    pipeline = Pipeline(TransformerLM(), schedule, loss=next_byte_loss, device="cpu", window=steps)
    for _ in range(steps + 1):
        report = pipeline.step(*text_batch(0, BATCH))
    pairs = list(zip(predicted.peak_bytes, report.peak_activation_bytes, strict=True))
    guess, real = max(pairs, key=lambda pair: abs(pair[0] / pair[1] - 1))
    recompute = any(action.op == "R" for _, _, action in schedule.actions())
    return {
        "schedule": schedule.name.partition(" ")[0] + ", recomputed" * recompute,
        "m": schedule.microbatches,
        "step predicted, ms": predicted.makespan * 1e3,
        "measured, ms": report.timeline.makespan * 1e3,
        "time off": predicted.makespan / report.timeline.makespan - 1,
        "peak predicted, MB": guess / 1e6,
        "measured, MB": real / 1e6,
        "peak off": guess / real - 1,
    }


def plot(rows: list[dict[str, Any]], file: Path) -> None:
    """Predicted over measured step times: on the diagonal both agree."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(4.8, 4.4))
    for name in dict.fromkeys(row["schedule"] for row in rows):
        own = [row for row in rows if row["schedule"] == name]
        axes.plot([r["measured, ms"] for r in own], [r["step predicted, ms"] for r in own], "o", label=name, alpha=0.7)
    ends = [min(row["measured, ms"] for row in rows), max(row["measured, ms"] for row in rows)]
    axes.plot(ends, ends, color="grey", linewidth=0.8)
    axes.set(xlabel="measured step, ms", ylabel="predicted, ms")
    axes.legend(fontsize=8)
    figure.savefig(file, dpi=120, bbox_inches="tight")


def run(options: argparse.Namespace) -> list[Table]:
    sizes = SIZES[::3] if options.quick else SIZES
    profile, steps = take_profile(sizes), options.steps
    rows = [measure(profile, case, steps) for case in tqdm(cases(options.quick), desc="fidelity", leave=False)]
    if options.plot:
        plot(rows, options.plot)
    line = profile.line()
    note = (
        f"Profiled at b = {', '.join(map(str, sizes))}: t(b) = {line.alpha * 1e3:.2f} ms + "
        f"{line.beta * 1e3:.2f} ms * b "
        f"(+-{line.error:.0%}), m* = {profile.best_microbatches(BATCH):.1f}. Peaks: the device that is furthest off."
    )
    summary = [
        {
            "prediction of": what,
            "off by": Spread.of([100 * abs(r[c]) for r in rows]),
            "worst": max(abs(r[c]) for r in rows),
        }
        for what, c in (("step time", "time off"), ("peak activation bytes", "peak off"))
    ]
    milliseconds = dict.fromkeys(("step predicted, ms", "measured, ms", "peak predicted, MB", "measured, MB"), ".1f")
    formats = {**milliseconds, "time off": "+.1%", "peak off": "+.1%"}
    return [
        Table("Prediction against measurement", rows, note, formats),
        Table("Its error", summary, "Per cent, median (quartiles), and the worst.", {"worst": ".1%"}),
    ]


def arguments() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("--steps", type=int, default=STEPS, help="measured steps of each, after one that warms up")
    made.add_argument("--plot", type=Path, metavar="PNG", help="draw predicted over measured")
    made.add_argument("--sizes", type=int, nargs="+", help=argparse.SUPPRESS)
    made.add_argument("--profile-to", type=Path, help=argparse.SUPPRESS)
    return made


def main() -> None:
    options = arguments().parse_args()
    if options.profile_to:
        data = {"loss": next_byte_loss, "devices": DEVICES, "sizes": options.sizes, "device": "cpu"}
        profile_costs(TransformerLM(), *text_batch(0, BATCH), **data).save(options.profile_to)
        return
    finish(run(options), options)


if __name__ == "__main__":
    main()
