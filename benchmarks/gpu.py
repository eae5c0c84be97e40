"""All that wants a GPU, in eight minutes at most: a table of each part, and a JSON file that grows with them.

Needs this checkout and a python3 with torch >= 2.6, numpy, tqdm, cloudpickle and matplotlib; no pytest, no install.
Each part runs in a process of its own, within its share of the time: one that fails or is late is reported, with the
rows it had by then, and the others go on. What parts say on stderr, tracebacks of failed tests too, goes into a .log
beside the JSON file. Into RESULTS.md with: python benchmarks/all.py --only none --gpu gpu.json

python3 benchmarks/gpu.py                        one GPU
python3 benchmarks/gpu.py --device cpu --small   does it run at all
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from alternate import in_turn, ratios, steps
from overhead import computing, costs_by_op
from plain_tests import run_tests
from results import Table, printed_machine, save_json
from torch import Tensor, nn
from torch_ranks import Row, zb_h1

from pipelab import Pipeline, Schedule, build_schedule, tune
from pipelab.models import TransformerLM, next_byte_loss, text_batch, transformer_stage
from pipelab.runtime import gradient_error, unsplit_gradients

ROOT = Path(__file__).parents[1]
TOTAL = 470.0
Rows = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Place:
    """Where it runs, and how large the models are."""

    device: torch.device
    small: bool

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def layers(self) -> int:
        return 8 if self.small else 48

    @property
    def realistic(self) -> dict[str, int]:
        if self.small:
            return {"layers": 8, "width": 32, "heads": 4, "tokens": 16}
        return {"layers": 48, "width": 1024, "heads": 16, "tokens": 512}

    @property
    def batch(self) -> tuple[Tensor, Tensor]:
        """Of the realistic model."""
        x, y = text_batch(0, 8 if self.small else 32, self.realistic["tokens"])
        return x.to(self.device), y.to(self.device)

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def peak_of(self, work: Callable[[], object]) -> int | None:
        """How far the allocator rises above what it holds now; None on a CPU."""
        if not self.cuda:
            return None
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before

    def kernels_of(self, work: Callable[[], object]) -> float | None:
        """Seconds that the device's kernels and copies take, however long the host lets it wait; None on a CPU."""
        if not self.cuda:
            return None
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            work()
            self.wait()
        return sum(event.self_device_time_total for event in profile.key_averages()) / 1e6


def tables(m: int, recompute: bool = False) -> list[Schedule]:
    """The four schedules and a split backward, on four devices."""
    made = [build_schedule(name, 4, m, recompute=recompute) for name in ("naive", "gpipe", "1f1b", "interleaved")]
    return made if recompute else [*made, zb_h1(4, m)]


# ---- the parts -------------------------------------------------------------------------------------------------------


def gpu_tests(place: Place) -> Rows:
    """tests/runtime/test_gpu.py, with pytest or without; on a CPU all are skipped."""
    rows = run_tests(ROOT / "tests" / "runtime" / "test_gpu.py")
    for name, cases in groupby(rows, key=lambda row: row["test"].partition("[")[0]):
        found = list(cases)
        counts = Counter(row["result"] for row in found)
        yield {
            "test": name,
            **{result: counts[result] for result in ("passed", "failed", "skipped")},
            "seconds": f"{sum(row['seconds'] for row in found):.1f}",
            "why": "; ".join(dict.fromkeys(row["why"] for row in found if row["why"])),
        }


def gradients(place: Place, launch: str = "threads") -> Rows:
    """Every schedule with all stages on one device, in float64 with dropout, against the unsplit model."""
    for recompute in (False, True):
        for schedule in tables(4, recompute):
            model = TransformerLM(layers=8 if place.small else 16, dropout=0.1).double().to(place.device)
            batch = text_batch()
            true = unsplit_gradients(model, next_byte_loss, *(tensor.to(place.device) for tensor in batch))
            with Pipeline(model, schedule, loss=next_byte_loss, device=place.device, launch=launch) as made:
                begun = time.perf_counter()
                loss = made.step(*batch).loss
                error = gradient_error(made.gradients(), true.gradients)
                yield {
                    "schedule": schedule.name + ", recomputed" * recompute,
                    "gradients off": f"{error:.1e}",
                    "loss off": f"{abs(loss - true.loss):.1e}",
                    "right": error <= 1e-10,
                    "first step, s": f"{time.perf_counter() - begun:.2f}",
                }


def device_clock(place: Place, launch: str = "threads") -> Rows:
    """The 48-layer model: bubbles by the device clock (CUDA events), and bytes held by each device."""
    count = 3 if place.small else 8
    for schedule in tables(4):
        told = {"loss": next_byte_loss, "device": place.device, "launch": launch}
        with Pipeline(TransformerLM(layers=place.layers).to(place.device), schedule, **told) as made:
            reports = [made.step(*text_batch()) for _ in range(count)]
        last = reports[-1]
        least = min(last.peak_activation_bytes)
        allocated = last.peak_allocated_bytes
        yield {
            "schedule": schedule.name,
            "makespan, device clock": f"{last.timeline.makespan * 1e3:.1f} ms",
            "wall": f"{median(r.wall.makespan for r in reports[1:]) * 1e3:.1f} ms",
            "bubble": f"{last.timeline.bubble_fraction:.3f}",
            "held bytes, ratio": " : ".join(f"{peak / least:.2f}" for peak in last.peak_activation_bytes),
            "allocators' peaks, MB": " : ".join("-" if a is None else f"{a / 1e6:.1f}" for a in allocated),
        }


def shared_gradients(place: Place) -> Rows:
    """The same in four processes that share the device."""
    yield from gradients(place, "processes")


def shared_clock(place: Place) -> Rows:
    """The same in four processes that share the device."""
    yield from device_clock(place, "processes")


def allocator(place: Place) -> Rows:
    """The allocator's peak of a step with all stages in one process: 16 shares of GPipe, 4 + 3 + 2 + 1 of 1F1B."""
    for schedule in tables(4):
        model = TransformerLM(layers=place.layers).to(place.device)
        made = Pipeline(model, schedule, loss=next_byte_loss, device=place.device)
        made.step(*text_batch())  # gradients are there from now on
        peak = place.peak_of(lambda made=made: made.step(*text_batch()))
        yield {"schedule": schedule.name, "allocator's peak, MB": "-" if peak is None else f"{peak / 1e6:.1f}"}


def realistic(place: Place) -> Rows:
    """A step of all stages on one device, over the unsplit model's step of the same micro-batches on that device."""
    model, batch, m = TransformerLM(**place.realistic).to(place.device, torch.bfloat16), place.batch, 8
    parts = list(zip(*(tensor.chunk(m) for tensor in batch), strict=True))

    def accumulated() -> None:
        model.zero_grad()
        for x, y in parts:
            (next_byte_loss(model(x), y) / m).backward()
        place.wait()

    def whole() -> None:
        model.zero_grad()
        next_byte_loss(model(batch[0]), batch[1]).backward()
        place.wait()

    def against(title: str, work: Callable[[], object], base: Callable[[], None] = accumulated) -> dict[str, Any]:
        work()
        peak, kernels = place.peak_of(work), place.kernels_of(work)
        found = in_turn(
            {"this": steps(work), "unsplit": steps(base)},
            rounds=3,
            seconds=0.1 if place.small else 0.5,
        )
        return {
            "step": title,
            "ms": f"{median(found['this']) * 1e3:.1f}",
            "/ unsplit": str(ratios(found, to="unsplit")["this"]),
            "of it kernels, ms": "-" if kernels is None else f"{kernels * 1e3:.1f}",
            "peak, GB": "-" if peak is None else f"{peak / 1e9:.2f}",
        }

    told = {"loss": next_byte_loss, "device": place.device, "clock": "wall"}
    for name, settings in (("1f1b", {}), ("1f1b", {"measure_memory": False}), ("gpipe", {}), ("zb-h1", {})):
        table = zb_h1(4, m) if name == "zb-h1" else build_schedule(name, 4, m)
        made = Pipeline(model, table, **told, **settings)
        tail = ", no meter" * bool(settings)
        yield against(f"{name}, p = 4, m = {m}{tail}", lambda made=made: (made.step(*batch), place.wait()))
    build = partial(_stage, sizes=place.realistic)
    cpu = tuple(tensor.cpu() for tensor in batch)
    with Pipeline(build, build_schedule("1f1b", 4, m), launch="processes", **told) as made:
        row = against(f"1f1b, p = 4, m = {m}, four processes", lambda: made.step(*cpu))
        yield {**row, "peak, GB": "-", "of it kernels, ms": "-"}  # this process does not see theirs
    single = Pipeline(model, build_schedule("naive", 1, 1), **told)
    title = "one device, the whole batch at once, over the unsplit model's"
    yield against(title, lambda: (single.step(*batch), place.wait()), whole)
    made = Pipeline(model, build_schedule("interleaved", 4, m), **told)
    yield against(f"interleaved, p = 4, m = {m}", lambda: (made.step(*batch), place.wait()))
    yield against("unsplit, micro-batch by micro-batch, over itself", accumulated)


def _stage(s: int, sizes: dict[str, int]) -> nn.Module:
    return transformer_stage(s, 4, **sizes).to(torch.bfloat16)


def split_backward(place: Place) -> Rows:
    """I and W over B by CUDA events, stages 1 to 3, of the realistic model in bf16 and of the narrow one."""
    narrow = {"layers": place.layers, "width": 64, "heads": 4, "tokens": 32}
    for sizes, dtype in ((narrow, torch.float32), (place.realistic, torch.bfloat16)):
        model = TransformerLM(**sizes).to(place.device, dtype)
        batch = place.batch if sizes is not narrow else text_batch()
        told = {"loss": next_byte_loss, "device": place.device}
        made = [Pipeline(model, table, **told) for table in (build_schedule("1f1b", 4, 8), zb_h1(4, 8))]
        costs = costs_by_op(*made, batch, count=3 if place.small else 8)
        yield {"model": f"{sizes['layers']} x {sizes['width']}, {dtype}".replace("torch.", ""), **costs}


def behind_kernels(place: Place) -> Rows:
    """A step over the same stages in a plain loop on the device: what actions cost where kernels do not hide it."""
    wide = 64 if place.small else 1024
    layers = place.layers
    for row in (
        Row("1f1b", 4),
        Row("1f1b", 4, width=wide, layers=2, batch=16 * wide),
        Row("1f1b", 4, m=8, model="transformer", width=64, layers=layers, batch=64),
    ):
        data = tuple(tensor.to(place.device) for tensor in row.data())
        plainly = computing(row, place.device)
        with Pipeline(row.build(), row.table(), loss=row.loss, device=place.device, clock="wall") as made:
            pair = {
                "ours": steps(lambda made=made, data=data: (made.step(*data), place.wait())),
                "plain": steps(lambda plainly=plainly: (plainly(), place.wait())),
            }
            found = in_turn(pair, rounds=5, seconds=0.3)
        ours, plain_ = median(found["ours"]), median(found["plain"])
        actions = sum(1 for _ in row.table().actions())
        yield {
            "case": row.title,
            "plain loop, ms": f"{plain_ * 1e3:.2f}",
            "ours, ms": f"{ours * 1e3:.2f}",
            "ratio": str(ratios(found, to="plain")["ours"]),
            "beyond it, µs an action": f"{(ours - plain_) / actions * 1e6:.1f}",
        }


def tuning(place: Place) -> Rows:
    """``tune`` on the device: what it chose, how far prediction was off, how long it took."""
    for width in (64,) if place.small else (64, 512):
        begun = time.perf_counter()
        model = TransformerLM(layers=8 if place.small else 16, width=width)
        told = {"loss": next_byte_loss, "device": place.device, "progress": False}
        told |= {"measure": 2, "rounds": 2, "steps": 2, "microbatches": (4,) if place.small else (4, 8, 16)}
        found = tune(model, *text_batch(0, 32), **told)
        yield {
            "model": f"{len(model.layers)} x {width}, batch 32",
            "chosen": str(found.best),
            "step": f"{found.seconds(found.best) * 1e3:.1f} ms",
            "prediction off by": "; ".join(f"{c}: {found.off(c):+.0%}" for c in found.measured),
            "took": f"{time.perf_counter() - begun:.1f} s",
        }


PARTS: dict[str, tuple[Callable[[Place], Rows], float]] = {  # and seconds that each may take
    "GPU tests": (gpu_tests, 120),
    "gradients": (gradients, 30),
    "device clock": (device_clock, 35),
    "allocator": (allocator, 20),
    "four processes on one device: gradients": (shared_gradients, 40),
    "four processes on one device: clock and memory": (shared_clock, 50),
    "the split at a realistic size": (realistic, 130),
    "split backward": (split_backward, 60),
    "behind kernels": (behind_kernels, 45),
    "tune": (tuning, 40),
}


# ---- one after the other ---------------------------------------------------------------------------------------------


def run_part(name: str, options: argparse.Namespace, seconds: float) -> tuple[Table, str]:
    """A part's rows, from a process of its own, and what went wrong, if anything."""
    command = [sys.executable, __file__, "--device", options.device, *(["--small"] if options.small else [])]
    rows: list[dict[str, Any]] = []
    errors: list[str] = []
    with subprocess.Popen(
        [*command, "--part", name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        late = threading.Event()
        timer = threading.Timer(seconds, lambda: (late.set(), _end(process.pid)))
        timer.start()
        reader = threading.Thread(target=lambda: errors.extend(process.stderr))
        reader.start()
        for line in process.stdout:
            with suppress(ValueError):
                rows.append(json.loads(line))
        process.wait()
        timer.cancel()
        _end(process.pid)  # ranks of a part that died
        reader.join()
    with options.json.with_suffix(".log").open("a", encoding="utf-8") as log:
        log.writelines([f"== {name}\n", *errors])
    wrong = f"not done within {seconds:.0f} s" if late.is_set() else ""
    if process.returncode and not wrong:
        wrong = f"failed ({process.returncode}): {''.join(errors)[-1500:].strip()}"
    return Table(name[0].upper() + name[1:], rows, " ".join((PARTS[name][0].__doc__ or "").split())), wrong


def _end(group: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, 9)


def run(options: argparse.Namespace) -> list[Table]:
    begun, found = time.perf_counter(), []
    names = [name for name in PARTS if options.only in name]
    for name in names:
        left = options.seconds - (time.perf_counter() - begun)
        if left < 10:
            table, wrong = Table(name, []), "no time was left"
        else:
            started = time.perf_counter()
            table, wrong = run_part(name, options, min(left, PARTS[name][1]))
            print(f"[{time.perf_counter() - started:.0f} s]", end=" ", flush=True)
        if wrong:
            table = Table(table.title, table.rows, f"{table.note} **{wrong}**")
        found.append(table)
        print(table.markdown(), flush=True)
        save_json(found, options.json)
    return found


def arguments() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--device", default="cuda:0", help="where all stages live (default: cuda:0)")
    made.add_argument("--small", action="store_true", help="tiny models: to see that it runs")
    made.add_argument("--only", default="", metavar="SUBSTRING", help="parts whose name has it")
    made.add_argument("--seconds", type=float, default=TOTAL, help="for all parts together")
    made.add_argument("--json", type=Path, default=Path("gpu.json"), metavar="FILE", help="default: gpu.json")
    made.add_argument("--part", choices=[*PARTS], help=argparse.SUPPRESS)
    return made


def main() -> None:
    options = arguments().parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no CUDA device here; to see that it runs: --device cpu --small")
    if options.part:
        if device.type == "cpu":
            torch.set_num_threads(1)
        for row in PARTS[options.part][0](Place(device, options.small)):
            print(json.dumps(row), flush=True)
        return
    print(printed_machine())
    run(options)


if __name__ == "__main__":
    main()
