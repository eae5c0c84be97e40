"""How far predictions of flows are off: real work on cores and a held disk, predicted from a profile, then run.

The profile runs each job alone, on other items than the run. A ratio above 1 means that the run took longer.
"Composed": the costs that jobs had in the run itself, on the device clock; other programs do not lengthen it.

python benchmarks/flow.py [--quick]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from alternate import Spread
from results import Table, finish, parser
from tqdm import tqdm

from pipelab.flow import Flow, Resource, Stage

ITEMS, PROFILED, ROUNDS = 40, 12, 5


def render(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(512, 512)) + np.linspace(0, 40, 512)


def smooth(picture: np.ndarray) -> np.ndarray:
    waves = np.fft.rfft2(picture)
    waves[40:-40, :] = waves[:, 40:] = 0
    return np.fft.irfft2(waves)


def pack(picture: np.ndarray) -> bytes:
    return zlib.compress(np.round(8 * picture).astype(np.int16).tobytes())


def words(seed: int) -> int:
    """Plain Python, which holds the interpreter."""
    text = " ".join(str(k * seed % 977) for k in range(20_000)).split()
    return len({one: text.count(one) for one in text[:20]})


def flows(write: Callable[[bytes], Any]) -> Iterator[tuple[str, str, Flow]]:
    """(what it is, launch, the flow)."""
    for workers in (1, 2):
        core = Resource("core", workers)
        for bandwidth in (3e6, 30e6):
            disk = Resource("disk", kind="disk", bandwidth=bandwidth)
            stages = (Stage("render", render, core), Stage("smooth", smooth, core), Stage("pack", pack, core))
            line = Flow(*stages, Stage("write", write, disk, size=len), name="pictures")
            yield f"pictures, {bandwidth / 1e6:g} MB/s", "threads", line
        yield "plain Python", "threads", Flow(Stage("words", words, core))
        yield "plain Python", "processes", Flow(Stage("words", words, core))


def measure(name: str, launch: str, flow: Flow, rounds: int) -> dict[str, Any]:
    flow.run(range(4), launch=launch, progress=False)
    ratios, composed, speeds = [], [], []
    for _ in range(rounds):
        costs = flow.profile(range(ITEMS, ITEMS + PROFILED), progress=False)
        report = flow.run(range(ITEMS), launch=launch, progress=False)
        predicted = flow.predict(ITEMS, costs).makespan
        ratios.append(report.makespan / predicted)
        composed.append(replace(report, clock="device").makespan / predicted)
        speeds.append(report.serial_time / report.makespan)
    workers = flow.stages[0].on
    assert isinstance(workers, Resource)
    return {
        "flow": name,
        "launch": launch,
        "cores": workers.workers,
        "bottleneck": report.bottleneck,
        "measured, ms": report.makespan * 1e3,
        "measured / predicted": Spread.of(ratios),
        "composed / predicted": Spread.of(composed),
        "over one after another": Spread.of(speeds),
    }


def run(options: argparse.Namespace) -> list[Table]:
    rounds = 1 if options.quick else ROUNDS
    with tempfile.TemporaryFile() as file:
        cases = list(flows(file.write))
        bar = tqdm(cases, desc="flow", leave=False)
        rows = [measure(*case, rounds) for case in bar]
    note = f"{ITEMS} items, all there at the start, on the wall clock. Median (quartiles) of {rounds} runs."
    return [Table("Flows: measured against predicted", rows, note, {"measured, ms": ".0f"})]


def arguments() -> argparse.ArgumentParser:
    return parser(__doc__)


def main() -> None:
    options = arguments().parse_args()
    finish(run(options), options)


if __name__ == "__main__":
    main()
