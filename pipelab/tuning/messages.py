"""What messages cost: tensors sent to and fro, by the pipeline's own engine and by gloo, and timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipelab.errors import ConfigurationError, PipelabError, whole_number
from pipelab.runtime import Pipeline
from pipelab.runtime.processes.join import LOOPBACK
from pipelab.schedules import build_schedule

__all__ = ["message_times"]

WAYS = ("threads", "processes", "gloo")
LIMIT = 120.0
"""Seconds that gloo's two processes have."""


class _Scale(nn.Module):
    """A stage with hardly anything to compute."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """x times a number."""
        return x * self.factor


def message_times(way: str, sizes: Sequence[int], repeats: int = 15) -> dict[int, float]:
    """Seconds that a message of so many bytes takes between two devices that have nothing else to do; the median.

    ``way``: "threads" and "processes" are a pipeline's launches. Its wall clock says how long after the end of a
    backward the next stage's begins. "gloo" sends between two processes by ``torch.distributed``, as between hosts, on
    the loopback interface. It takes half of each round trip. Raises ConfigurationError for another way or size.
    """
    if way not in WAYS:
        raise ConfigurationError(f"way must be one of {', '.join(map(repr, WAYS))}, got {way!r}")
    if not isinstance(sizes, Iterable):
        raise ConfigurationError(f"sizes must be a list of bytes, got {sizes!r}; try [{sizes!r}]")
    floats = [-(-whole_number("size", "", size) // 4) for size in sizes]
    whole_number("repeats", "", repeats)
    found = _gloo(floats, repeats) if way == "gloo" else _pipeline(way, floats, repeats)
    return dict(zip(sizes, found, strict=True))


def _pipeline(launch: str, floats: Sequence[int], repeats: int) -> list[float]:
    found = []
    order = build_schedule("naive", devices=2, microbatches=1)
    stages = nn.Sequential(_Scale(), _Scale())
    with Pipeline(stages, order, loss=nn.functional.mse_loss, launch=launch, clock="wall") as pipeline:
        for count in floats:
            x, gaps = torch.ones(1, count), []
            for _ in range(repeats):
                spans = {str(span.slot): span for span in pipeline.step(x, x).timeline.spans}
                gaps.append(spans["0B0"].start - spans["1B0"].end)
            found.append(median(gaps))
    return found


def _gloo(floats: Sequence[int], repeats: int) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder, "store"))
        code = f"from {__name__} import speak; speak({{}}, {store!r}, {list(floats)}, {repeats})"
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": LOOPBACK, "OMP_NUM_THREADS": "1"}
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", code.format(rank)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(2)
        ]
        try:
            told, errors = ranks[0].communicate(timeout=LIMIT)
            ranks[1].communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            raise PipelabError(f"gloo's two processes did not end within {LIMIT:g} s") from None
        finally:
            for one in ranks:
                one.kill()
                one.wait()
        if ranks[0].returncode:
            raise PipelabError(f"gloo's processes failed: {errors.strip().splitlines()[-1]}")
        times: list[float] = json.loads(told.splitlines()[-1])
        return times


def speak(rank: int, path: str, floats: Sequence[int], repeats: int) -> None:
    """One of gloo's two processes: send each size to and fro; rank 0 writes half the median round trip of each."""
    torch.set_num_threads(1)
    store = dist.FileStore(path, 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=LIMIT))
    found = []
    for count in floats:
        x, trips = torch.ones(count), []
        for _ in range(repeats + 1):
            begun = time.perf_counter()
            for sender in (0, 1):
                (dist.send if rank == sender else dist.recv)(x, 1 - rank)
            trips.append(time.perf_counter() - begun)
        found.append(median(trips[1:]) / 2)
    dist.barrier()
    dist.destroy_process_group()
    if rank == 0:
        sys.stdout.write(json.dumps(found))
