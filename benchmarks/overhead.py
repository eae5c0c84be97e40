"""What the runtime costs beside the computing itself: microseconds an action, milliseconds a step, ratios of steps.

An action's CPU time has four parts. Computing: the same stages' forwards and backwards in a plain loop. In the slot:
what the recorded cost has more than that. Bookkeeping: what a worker spends outside its recorded slots, with all stages
on one device, where nothing is sent. Channel: what it spends more with a device for each stage.

python benchmarks/overhead.py
"""

from __future__ import annotations

import argparse
import inspect
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from alternate import Spread, in_turn, ratios, steps
from results import Table, main, parser
from torch import Tensor, nn
from torch_ranks import Row, zb_h1
from tqdm import tqdm

from pipelab import Monitor, Pipeline, StepReport, build_schedule
from pipelab.models import TransformerLM, next_byte_loss, text_batch
from pipelab.models.cut import cut_model

TINY = Row("1f1b", 4)
SMALL = Row("1f1b", 4, layers=2, width=128, batch=256)
DEEP = Row("1f1b", 4, m=4, model="transformer", width=64, layers=48, batch=64)
LAUNCHES = ("threads", "processes")
KNOWN = inspect.signature(Pipeline).parameters
OFF = {name: False for name in ("measure_memory", "measure_costs") if name in KNOWN}


def pipeline(row: Row, launch: str = "threads", **settings: Any) -> Pipeline:
    told = {"device": "cpu", "clock": "wall", **settings}
    schedule = told.pop("schedule", None) or row.table()
    return Pipeline(row.build(), schedule, loss=row.loss, launch=launch, **told)


def computing(row: Row, device: torch.device | str = "cpu") -> Callable[[], None]:
    """All forwards and backwards of a step, stage by stage as a pipeline runs them, and nothing else."""
    table = row.table()
    stages = [nn.Sequential(*stage.parts) for stage in cut_model(row.build().to(device), table.stages)]
    batches = list(zip(*(tensor.to(device).chunk(row.m) for tensor in row.data()), strict=True))

    def step() -> None:
        for stage in stages:
            stage.zero_grad()
        for x, target in batches:
            kept: list[tuple[Tensor, Tensor]] = []
            for stage in stages:
                given = x.detach().requires_grad_(x.is_floating_point())
                x = stage(given)
                kept.append((given, x))
            (row.loss(x, target) / row.m).backward()
            for (_, output), (given, _) in zip(kept[-2::-1], kept[:0:-1], strict=True):
                output.backward(given.grad)

    return step


def of_worker(made: Pipeline, batch: Sequence[Tensor], actions: int) -> Callable[[int], list[float]]:
    """CPU seconds an action that the workers used, by their own account."""
    return lambda count: [made.step(*batch).worker_cpu_seconds / actions for _ in range(count)]


def parts_of_an_action(row: Row, launch: str, rounds: int) -> dict[str, Any]:
    batch, table = row.data(), row.table()
    actions = sum(1 for _ in table.actions())
    one = build_schedule("interleaved", 1, row.m, table.stages)
    bare = computing(row)
    recorded: dict[str, list[float]] = {"one device": [], "devices": []}

    def plain(count: int) -> list[float]:
        times = []
        for _ in range(count):
            begun = time.thread_time()
            bare()
            times.append((time.thread_time() - begun) / actions)
        return times

    def worker(name: str, made: Pipeline) -> Callable[[int], list[float]]:
        def block(count: int) -> list[float]:
            reports: list[StepReport] = [made.step(*batch) for _ in range(count)]
            recorded[name].append(median(sum(map(sum, r.slot_costs.slots)) for r in reports) / actions)
            return [report.worker_cpu_seconds / actions for report in reports]

        return block

    with pipeline(row, launch) as spread, pipeline(row, launch, schedule=one) as single:
        contenders = {"plain": plain, "one device": worker("one device", single), "devices": worker("devices", spread)}
        found = {name: median(times) for name, times in in_turn(contenders, rounds, 0.002).items()}
    inside = {name: median(costs) for name, costs in recorded.items()}
    return {
        "case": row.title,
        "launch": launch,
        "computing": found["plain"] * 1e6,
        "in the slot": (inside["devices"] - found["plain"]) * 1e6,
        "bookkeeping": (found["one device"] - inside["one device"]) * 1e6,
        "channel": (found["devices"] - inside["devices"] - found["one device"] + inside["one device"]) * 1e6,
        "beyond computing": (found["devices"] - found["plain"]) * 1e6,
    }


def outside_the_makespan(row: Row, launch: str, count: int) -> dict[str, Any]:
    batch = row.data()
    whole, outside = [], []
    with pipeline(row, launch) as made:
        for _ in range(count + 2):
            begun = time.perf_counter()
            report = made.step(*batch)
            whole.append(time.perf_counter() - begun)
            outside.append(whole[-1] - report.wall.makespan)
    spread = Spread.of([seconds * 1e3 for seconds in outside[2:]])
    return {"case": row.title, "launch": launch, "step, ms": median(whole[2:]) * 1e3, "outside, ms": spread}


def measuring(row: Row, launch: str, rounds: int) -> dict[str, Any]:
    batch = row.data()
    with pipeline(row, launch) as on, pipeline(row, launch, **OFF) as off:
        found = in_turn({"on": steps(lambda: on.step(*batch)), "off": steps(lambda: off.step(*batch))}, rounds)
    return {"case": row.title, "launch": launch, "on / off": ratios(found, to="off")["on"]}


class Timed(Monitor):
    """A monitor that notes down what it takes itself."""

    taken = 0.0

    def observe(self, report: StepReport, seconds: float) -> None:
        begun = time.perf_counter()
        super().observe(report, seconds)
        self.taken += time.perf_counter() - begun


def watching(row: Row, launch: str, clock: str, rounds: int) -> dict[str, Any]:
    """With a file that is written every ten steps: the mean step, in which that counts."""
    batch = row.data()

    def block(made: Pipeline) -> Callable[[int], list[float]]:
        return lambda count: [mean(steps(lambda: made.step(*batch))(count))]

    with tempfile.TemporaryDirectory() as folder:
        monitor = Timed(csv=Path(folder) / "steps.csv")
        with pipeline(row, launch, clock=clock, monitor=monitor) as on, pipeline(row, launch, clock=clock) as off:
            contenders = {"on": block(on), "off": block(off)}
            found = in_turn(contenders, rounds, seconds=2.0, least=10)
            monitor.taken, begun = 0.0, time.perf_counter()
            block(on)(20)
            part = monitor.taken / (time.perf_counter() - begun)
    told = {"case": row.title, "launch": launch, "clock": clock}
    return {**told, "on / off": ratios(found, to="off")["on"], "of a step": part}


def costs_by_op(whole: Pipeline, split: Pipeline, batch: Sequence[Tensor], count: int) -> dict[str, str]:
    """I and W of one pipeline over B of another on the same model, by recorded costs, without stage 0."""
    found: dict[str, list[float]] = {op: [] for op in "BIW"}
    for number in range(count + 2):
        sums = dict.fromkeys("FBIW", 0.0)
        for made in (whole, split) if number % 2 else (split, whole):
            report = made.step(*batch)
            for costs, program in zip(report.slot_costs.slots, made.schedule.programs, strict=True):
                for cost, action in zip(costs, program, strict=True):
                    sums[action.op] += cost if action.stage else 0.0
        if number > 1:
            for op, times in found.items():
                times.append(sums[op])
    each = list(zip(*found.values(), strict=True))
    return {
        "I / B": str(Spread.of([i / b for b, i, _ in each])),
        "W / B": str(Spread.of([w / b for b, _, w in each])),
        "(I + W) / B": str(Spread.of([(i + w) / b for b, i, w in each])),
    }


def split_backward(count: int) -> dict[str, str]:
    model = DEEP.build()
    told = {"loss": DEEP.loss, "device": "cpu"}
    made = [Pipeline(model, table, **told) for table in (DEEP.table(), zb_h1(DEEP.p, DEEP.m))]
    return {"case": "transformer 48 x 64, batch 64, m = 4", **costs_by_op(*made, DEEP.data(), count)}


def whole_steps(rounds: int) -> list[Mapping[str, Any]]:
    """Ratios of whole steps of the 48-layer model."""
    model, batch = TransformerLM(), text_batch()

    def unsplit() -> None:
        model.zero_grad()
        next_byte_loss(model(batch[0]), batch[1]).backward()

    def made(name: str, p: int = 4, m: int = 4) -> Callable[[], object]:
        ours = Pipeline(model, build_schedule(name, p, m), loss=next_byte_loss, device="cpu", clock="wall")
        return lambda: ours.step(*batch)

    pairs = {
        "one device, one micro-batch / the unsplit model's loop": (made("naive", 1, 1), unsplit),
        "1f1b p = m = 4 in threads / the unsplit model's loop": (made("1f1b"), unsplit),
        "naive / 1f1b, p = m = 4": (made("naive"), made("1f1b")),
        "1f1b at m = 32 / at m = 4": (made("1f1b", m=32), made("1f1b")),
    }
    rows = []
    for title, (first, second) in tqdm(pairs.items(), desc="whole steps", leave=False):
        found = in_turn({"first": steps(first), "second": steps(second)}, rounds)
        rows.append({"steps": title, "ratio": ratios(found, to="second")["first"]})
    return rows


def run(options: argparse.Namespace) -> list[Table]:
    torch.set_num_threads(1)
    rounds = 3 if options.quick else 7
    cases = [(row, launch) for row in (TINY, SMALL) for launch in LAUNCHES]
    parts = [parts_of_an_action(*case, rounds) for case in tqdm(cases, desc="µs an action", leave=False)]
    cases = [(row, launch) for row in (TINY, DEEP) for launch in LAUNCHES]
    outside = [
        outside_the_makespan(*case, 5 if options.quick else 15) for case in tqdm(cases, desc="outside", leave=False)
    ]
    cases = [(row, launch) for row in (DEEP,) for launch in LAUNCHES]
    measured = [measuring(*case, rounds) for case in tqdm(cases, desc="measuring", leave=False)]
    cases = [(DEEP, launch, clock) for launch in LAUNCHES for clock in ("device", "wall")]
    watched = [watching(*case, rounds) for case in tqdm(cases, desc="a monitor", leave=False)]
    note = "CPU microseconds of workers, by their own account; `computing` is the same stages in a plain loop."
    numbers = dict.fromkeys(("computing", "in the slot", "bookkeeping", "channel", "beyond computing"), ".1f")
    tables = [
        Table("An action's parts", parts, note, numbers),
        Table("Outside the makespan", outside, "Of `step()`'s wall time, median (quartiles).", {"step, ms": ".1f"}),
        Table("Split backward", [split_backward(2 * rounds)], "Recorded costs of stages 1 to 3: median (quartiles)."),
        Table("What measuring costs", measured, f"Off: {', '.join(f'`{n}=False`' for n in OFF)}."),
    ]
    tables.append(Table("What a monitor costs", watched, "With `Monitor(csv=...)`; off: none.", {"of a step": ".2%"}))
    if not options.quick:
        tables.append(Table("Whole steps of the 48-layer model", whole_steps(rounds)))
    return tables


def arguments() -> argparse.ArgumentParser:
    return parser(__doc__)


if __name__ == "__main__":
    main(run, arguments())
