"""Thousands of steps, and of pipelines: nothing grows, nothing slows down, and what is learnt is still right."""

from __future__ import annotations

import copy
import gc
import statistics
import threading
import time
from contextlib import suppress
from typing import NamedTuple

import psutil
import pytest
import torch

from pipelab import Pipeline, build_schedule
from pipelab.runtime.processes import pool
from tests.runtime.small import data, mlp, mse

pytestmark = pytest.mark.slow

MEGABYTE = 2**20
WARM = 0.2  # of the steps: allocators, caches and medians fill


class Held(NamedTuple):
    """What this process and those that it has started hold: see ``held``."""

    bytes: int
    files: int
    threads: int
    shared: int
    processes: int


def family() -> list[psutil.Process]:
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def held() -> Held:
    """Memory in RSS; open descriptors; threads; blocks of shared memory that are mapped; processes."""
    gc.collect()
    found = []
    for process in family():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            blocks = sum("memfd:pipelab" in place.path for place in process.memory_maps(grouped=False))
            found.append((process.memory_info().rss, process.num_fds(), process.num_threads(), blocks, 1))
    return Held(*map(sum, zip(*found, strict=True)))


def settled(processes: int) -> Held:
    """The same, once those that are ending have ended: a busy machine takes its time."""
    end = time.monotonic() + 20
    while (now := held()).processes > processes and time.monotonic() < end:
        time.sleep(0.1)
    return now


def check_flat(before: Held, after: Held, megabytes: float, what: str) -> None:
    grown = (after.bytes - before.bytes) / MEGABYTE
    print(f"{what}: {grown:+.2f} MB, {before} -> {after}")
    assert grown < megabytes, f"{what}: {grown:.2f} MB more"
    assert after.files <= before.files + 2
    assert after.threads <= before.threads + 2
    assert after.shared <= before.shared
    assert after.processes == before.processes


def cpu_seconds() -> float:
    """Of all, up to now: other people's load does not show in it."""
    return sum(sum(process.cpu_times()[:2]) for process in family())


def sgd(named):
    return torch.optim.SGD([p for _, p in named], lr=0.02, momentum=0.5)


@pytest.mark.parametrize(
    ("launch", "clock", "steps"),
    [
        ("threads", "device", 3000),
        ("threads", "wall", 3000),
        ("processes", "device", 2000),
        ("processes", "wall", 2000),
    ],
)
def test_thousands_of_steps_hold_no_more_take_no_longer_and_learn_what_the_unsplit_model_learns(launch, clock, steps):
    model, schedule = mlp(4, width=4), build_schedule("1f1b", devices=2, microbatches=3)
    alone, batches = copy.deepcopy(model), [data(12, seed=seed) for seed in range(7)]
    optimizer = sgd(list(alone.named_parameters()))
    tenth, warm = steps // 10, int(WARM * steps)
    seconds, cpu, before = [], {}, None
    told = {"loss": mse, "optimizer": sgd, "launch": launch, "clock": clock, "device": "cpu", "time_limit": 60}
    with Pipeline(model, schedule, **told) as pipeline:
        for step in range(steps):
            if step in (warm, warm + tenth, steps - tenth):
                cpu[step] = cpu_seconds()
            if step == warm:
                before = held()
            x, y = batches[step % len(batches)]
            begun = time.perf_counter()
            found = pipeline.step(x, y).loss
            seconds.append(time.perf_counter() - begun)
            optimizer.zero_grad()
            loss = mse(alone(x), y)
            loss.backward()
            optimizer.step()
            assert abs(found - float(loss.detach())) < 1e-9, f"step {step}"
        cpu[steps] = cpu_seconds()
        after = held()
        wall = statistics.median(seconds[-tenth:]) / statistics.median(seconds[warm : warm + tenth])
        work = (cpu[steps] - cpu[steps - tenth]) / (cpu[warm + tenth] - cpu[warm])
        state = {name: tensor.clone() for name, tensor in pipeline.state_dict().items()}
    print(f"step {1000 * statistics.median(seconds):.2f} ms; last tenth against first: wall {wall:.2f}, CPU {work:.2f}")
    check_flat(before, after, 4, f"{launch}, {clock} clock, {steps - warm} steps")
    assert min(wall, work) < 1.5
    assert all(torch.allclose(tensor, state[name], rtol=0, atol=1e-9) for name, tensor in alone.state_dict().items())


def cycle(launch: str, k: int) -> None:
    """One pipeline of its own model and its own schedule, opened, stepped, and closed."""
    name = ("naive", "gpipe", "1f1b", "interleaved")[k % 4]
    model, (x, y) = mlp(4, width=4, seed=k), data(8, seed=k)
    told = {"loss": mse, "optimizer": sgd, "launch": launch, "device": "cpu", "time_limit": 60}
    expected = float(mse(model(x), y).detach())
    with Pipeline(model, build_schedule(name, devices=2, microbatches=2 + k % 2 * 2), **told) as pipeline:
        assert abs(pipeline.step(x, y).loss - expected) < 1e-10


def test_a_thousand_pipelines_in_threads_leave_nothing_behind():
    cycles, warm = 1000, 200
    for k in range(cycles):
        if k == warm:
            before, running = held(), threading.active_count()
        cycle("threads", k)
    check_flat(before, held(), 10, f"{cycles - warm} cycles in threads")
    assert threading.active_count() <= running


def test_fifty_pipelines_in_processes_leave_nothing_behind():
    """Warm processes go from one to the next; every tenth finds none, and starts its own."""
    pool.stop_all()
    first = len(family())
    for k in range(50):
        if k % 10 == 0:
            pool.stop_all()
        cycle("processes", k)
        if k == 9:
            before = held()
    check_flat(before, settled(before.processes), 10, "40 cycles in processes")
    pool.stop_all()
    end = time.monotonic() + 20
    while len(family()) > first:
        assert time.monotonic() < end, "processes are left"
        time.sleep(0.05)
