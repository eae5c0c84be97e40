"""Predicted against measured: step time by the device clock, and peak activation bytes, on the 48-layer model.

The prediction comes from a cost profile that another process took, of micro-batch sizes that no measured step has.

python benchmarks/prediction.py [--steps 5]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from tqdm import tqdm

from pipelab import Pipeline, build_schedule
from pipelab.models import TransformerLM, next_byte_loss, text_batch
from pipelab.tuning import CostProfile, profile_costs

BATCH, DEVICES = 64, 4
MICROBATCHES = (1, 2, 4, 8, 12, 16, 20, 32, 64)
SIZES = (7, 10, 14, 20, 28, 40, 56)  # the steps below run micro-batches of 1 to 6, 8, 16, 32 and 64 sequences


def cases() -> list[tuple[str, int, int, bool]]:
    """(schedule, m, v, recompute)."""
    found = [("naive", 1, 1, False)]  # its one micro-batch is the whole batch, whatever m
    found += [("gpipe", m, 1, False) for m in MICROBATCHES]
    found += [("gpipe", m, 1, True) for m in MICROBATCHES]
    found += [("1f1b", m, 1, False) for m in MICROBATCHES]
    return found + [("interleaved", m, 2, False) for m in MICROBATCHES if m % DEVICES == 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5, help="measured steps of each, after one that warms up")
    parser.add_argument("--profile-to", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    model, batch = TransformerLM(), text_batch(0, BATCH)
    if options.profile_to:
        profile_costs(model, *batch, loss=next_byte_loss, devices=DEVICES, sizes=SIZES, device="cpu").save(
            options.profile_to
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile.json"
        subprocess.run([sys.executable, __file__, "--profile-to", str(path)], check=True)
        profile = CostProfile.load(path)
    line = profile.line()
    print(f"profiled at b = {SIZES}: t(b) = {line.alpha * 1e3:.2f} ms + {line.beta * 1e3:.2f} ms * b ", end="")
    print(f"(+-{line.error:.0%}), m* = {profile.best_microbatches(BATCH):.1f}\n")
    print("schedule         m   step, predicted  measured    off   peak activations, predicted  measured    off")
    off_time, off_bytes = [], []
    for name, m, v, recompute in tqdm(cases(), leave=False):
        schedule = build_schedule(name, DEVICES, m, v, recompute=recompute)
        predicted = profile.predict(schedule, BATCH)
        pipeline = Pipeline(model, schedule, loss=next_byte_loss, device="cpu", window=options.steps)
        for _ in range(options.steps + 1):
            report = pipeline.step(*batch)
        times = predicted.makespan, report.timeline.makespan
        bytes_ = list(zip(predicted.peak_bytes, report.peak_activation_bytes, strict=True))
        worst = max(bytes_, key=lambda pair: abs(pair[0] / pair[1] - 1))
        off_time.append(times[0] / times[1] - 1)
        off_bytes.append(worst[0] / worst[1] - 1)
        tqdm.write(
            f"{name + ' R' * recompute:14} {m:3}        {times[0] * 1e3:7.1f} ms  {times[1] * 1e3:7.1f} ms  "
            f"{off_time[-1]:+5.1%}              {worst[0] / 1e6:11.1f} MB  {worst[1] / 1e6:5.1f} MB  "
            f"{off_bytes[-1]:+5.1%}"
        )
    print(f"\nstep time: median error {median(map(abs, off_time)):.1%}, worst {max(map(abs, off_time)):.1%}")
    print(f"peak activation bytes, the device furthest off: worst {max(map(abs, off_bytes)):.1%}")


if __name__ == "__main__":
    main()
