"""PyTorch's own pipelines, in processes that sleep until they are asked for a block of steps."""

from __future__ import annotations

import inspect
import itertools
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor, nn

from pipelab.models import TransformerLM, next_byte_loss, text_batch
from pipelab.models.cut import cut_model
from pipelab.schedules import Schedule, build_schedule


def zb_h1(devices: int, microbatches: int) -> Schedule:
    """ZB-H1 (arXiv 2401.10241): 1F1B whose W stay r behind the I on device r, where they fill its bubbles."""
    rows = []
    for r in range(devices):
        warmup, row, weights = min(devices - 1 - r, microbatches), [], 0
        row += [f"{r}F{i}" for i in range(warmup)]
        for i in range(microbatches):
            row += [f"{r}F{i + warmup}"] if i + warmup < microbatches else []
            row.append(f"{r}I{i}")
            if i >= r:
                row.append(f"{r}W{weights}")
                weights += 1
        rows.append(",".join(row + [f"{r}W{i}" for i in range(weights, microbatches)]))
    return Schedule.from_csv("\n".join(rows) + "\n", name="zb-h1")


@dataclass(frozen=True)
class Row:
    """One case of the comparison."""

    schedule: str
    p: int
    v: int = 1
    m: int = 16
    model: str = "linear"
    width: int = 8
    layers: int = 1
    """Of a stage of Linear layers; of the whole transformer."""
    batch: int = 128

    @property
    def title(self) -> str:
        table = f"{self.schedule}, p = {self.p}" + (f", v = {self.v}" if self.v > 1 else "")
        if self.model == "transformer":
            return f"transformer {self.layers} x {self.width}, batch {self.batch}, {table}, m = {self.m}"
        stage = f"Linear {self.width}" if self.layers == 1 else f"{self.layers} x Linear {self.width}"
        return f"{stage} a stage, {self.batch // self.m} rows a micro-batch, {table}, m = {self.m}"

    def table(self) -> Schedule:
        if self.schedule == "zb-h1":
            return zb_h1(self.p, self.m)
        return build_schedule(self.schedule, self.p, self.m, self.v)

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        if self.model == "transformer":
            return TransformerLM(self.layers, self.width)
        return nn.Sequential(*(nn.Linear(self.width, self.width) for _ in range(self.p * self.v * self.layers)))

    def data(self) -> tuple[Tensor, Tensor]:
        if self.model == "transformer":
            return text_batch(0, self.batch)
        numbers = torch.Generator().manual_seed(1)
        return tuple(torch.randn(self.batch, self.width, generator=numbers) for _ in range(2))

    @property
    def loss(self) -> Any:
        return next_byte_loss if self.model == "transformer" else nn.functional.mse_loss


class TorchRanks:
    """``size`` processes joined by gloo. They block on a pipe between blocks, so that others have the machine."""

    def __init__(self, size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory()
        ends = [context.Pipe() for _ in range(size)]
        self._pipes = [mine for mine, _ in ends]
        self._processes = [
            context.Process(target=_rank, args=(r, size, self._folder.name, theirs), daemon=True)
            for r, (_, theirs) in enumerate(ends)
        ]
        for process in self._processes:
            process.start()
        for _, theirs in ends:
            theirs.close()

    def load(self, row: Row) -> dict[str, Tensor]:
        """Make the row's pipeline in the first p processes; its gradients in float64, of one step, by name."""
        found = self._ask(len(self._pipes), "load", row)
        return {name: gradient for part in found if part for name, gradient in part.items()}

    def block(self, row: Row, count: int) -> list[float]:
        """The seconds of each of ``count`` steps, read on rank 0; the first begins and the last ends at a barrier.

        Between steps there is no barrier: rank 0 cannot begin the next before the last one's gradients have come.
        """
        return self._ask(row.p, "block", count)[0]

    def close(self) -> None:
        for pipe in self._pipes:
            with suppress(OSError):
                pipe.send(("close", None))
        for process in self._processes:
            process.join(10)
        self._folder.cleanup()

    def _ask(self, ranks: int, what: str, told: Any) -> list[Any]:
        for pipe in self._pipes[:ranks]:
            pipe.send((what, told))
        answers: dict[Any, Any] = {}
        while len(answers) < ranks:
            for pipe in wait([pipe for pipe in self._pipes[:ranks] if pipe not in answers]):
                answers[pipe] = pipe.recv()
                if isinstance(answers[pipe], BaseException):  # the others wait for this one inside gloo
                    for process in self._processes:
                        process.kill()
                    raise answers[pipe]
        return [answers[pipe] for pipe in self._pipes[:ranks]]


def _rank(rank: int, size: int, folder: str, pipe: Any) -> None:
    torch.set_num_threads(1)
    loopback = "lo" if Path("/sys/class/net/lo").exists() else "lo0"
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    runner: _Runner | None = None
    with suppress(EOFError):
        while True:
            what, told = pipe.recv()
            if what == "close":
                break
            try:
                if what == "load":
                    group = dist.new_group(range(told.p))
                    check = _Runner(told, group, torch.float64).gradients() if rank < told.p else None
                    runner = _Runner(told, group, torch.float32) if rank < told.p else None
                    pipe.send(check)
                else:
                    assert runner is not None
                    pipe.send(runner.block(told))
            except Exception as error:  # noqa: BLE001
                pipe.send(RuntimeError(f"rank {rank}: {type(error).__name__}: {error}"))
    os._exit(0)  # gloo's threads may let go of Python objects late


class _Runner:
    """One rank's part of a row."""

    def __init__(self, row: Row, group: Any, dtype: torch.dtype) -> None:
        from torch.distributed.pipelining import PipelineStage

        self.group, table = group, row.table()
        here = table.stages_on(dist.get_rank(group))
        cut = cut_model(row.build().to(dtype), table.stages)
        stages = [
            PipelineStage(nn.Sequential(*cut[s].parts), s, table.stages, torch.device("cpu"), group=group) for s in here
        ]
        self.named = [pair for s in here for pair in cut[s].named_unsplit_parameters()]
        self.schedule = _executor(row, table, stages)
        inputs, targets = (t.to(dtype) if t.is_floating_point() else t for t in row.data())
        known = inspect.signature(self.schedule.step).parameters
        self.lean = {"return_outputs": False} if "return_outputs" in known else {}  # outputs need not be put together
        self.inputs = (inputs,) if 0 in here else ()
        self.last = table.stages - 1 in here
        self.targets = targets if self.last else None

    def step(self) -> float | None:
        """Forwards and backwards; the loss where the last stage lives."""
        for _, parameter in self.named:
            parameter.grad = None
        losses: list[Tensor] = []
        told = {"target": self.targets, "losses": losses} if self.last else {}
        self.schedule.step(*self.inputs, **told, **self.lean)
        return float(torch.stack([loss.detach() for loss in losses]).mean()) if self.last else None

    def gradients(self) -> dict[str, Tensor]:
        self.step()
        return {name: parameter.grad for name, parameter in self.named}

    def block(self, count: int) -> Sequence[float]:
        dist.barrier(self.group)
        times = [time.perf_counter()]
        for number in range(count):
            self.step()
            if number == count - 1:
                dist.barrier(self.group)
            times.append(time.perf_counter())
        return [b - a for a, b in itertools.pairwise(times)]


def _executor(row: Row, table: Schedule, stages: list[Any]) -> Any:
    """PyTorch's class for the row's schedule; its runtime with our table where it has none."""
    from torch.distributed.pipelining import Schedule1F1B, ScheduleGPipe, ScheduleInterleaved1F1B
    from torch.distributed.pipelining.schedules import _PipelineScheduleRuntime

    single = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}
    if row.schedule in single:
        return single[row.schedule](stages[0], row.m, loss_fn=row.loss)
    if row.schedule == "interleaved":
        return ScheduleInterleaved1F1B(stages, row.m, loss_fn=row.loss)
    runtime = _PipelineScheduleRuntime(stages, row.m, loss_fn=row.loss)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "table.csv"
        file.write_text(table.to_csv(dialect="torch"), encoding="ascii")
        runtime._load_csv(str(file), format="compute_only")
    return runtime
