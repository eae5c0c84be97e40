"""Reading what a slot cost, where it runs.

On a CPU a slot's cost is the CPU time of the thread that ran it: what it would take on a core of its own, whoever else
wanted the core meanwhile. On a GPU it is the time between two CUDA events.

Devices that share a processor take turns under the device clock, one slot at a time. A slot on a shared GPU holds it
from its first enqueue to its end event. Threads on a CPU share Python's interpreter: left to compete for it in the
middle of a slot, they spent up to half of their CPU time on handing it over, which no device of its own would.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch

__all__ = ["CpuMeter", "CudaMeter", "NoMeter", "Readings", "SlotMeter", "make_meter", "sleep_until"]


@dataclass(slots=True)
class Readings:
    """Slot by slot: host times at which it began and ended, times of the work itself, and what it cost (seconds)."""

    host_start: list[float] = field(default_factory=list)
    host_end: list[float] = field(default_factory=list)
    start: list[float] = field(default_factory=list)
    end: list[float] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)


class SlotMeter(Protocol):
    """Times the slots of one device."""

    def begin(self) -> None:
        """A slot starts."""
        ...

    def end(self) -> None:
        """The slot is done (on a GPU: enqueued)."""
        ...

    def hold(self, times: float, check: Callable[[], None]) -> None:
        """Let the slot that has just ended last ``times`` what it cost; ``check`` may end the wait by an error."""
        ...

    def reached(self) -> tuple[int, bool] | None:
        """The slot that the device is at, and whether it has begun it; None if all that was enqueued is done."""
        ...

    def readings(self) -> Readings:
        """What was read, slot by slot; waits for the device if it must."""
        ...


class CpuMeter:
    """Thread CPU time.

    Where it holds its processor (``alone``: shared by no one in this process) Python's garbage collection waits for the
    end of the slot: a full one takes longer than many a slot, and which slot it falls into says nothing of the stage.
    """

    def __init__(self, shared: threading.Lock | None = None, *, alone: bool = False) -> None:
        self._shared, self._quiet = shared, alone or shared is not None
        self._collects = False
        self._host: list[float] = []
        """When slots began and ended, in turn."""
        self._cpu: list[float] = []

    def begin(self) -> None:
        """A slot starts, when it is its turn."""
        if self._quiet:
            if self._shared is not None:
                self._shared.acquire()
            self._collects = gc.isenabled()
            gc.disable()
        self._host.append(time.perf_counter())
        self._cpu.append(time.thread_time())

    def end(self) -> None:
        """The slot is done."""
        self._cpu.append(time.thread_time())
        self._host.append(time.perf_counter())
        if self._quiet:
            if self._collects:
                gc.enable()
            if self._shared is not None:
                self._shared.release()

    def hold(self, times: float, check: Callable[[], None]) -> None:
        """Let the slot that has just ended last ``times`` what it cost."""
        sleep_until(self._host[-2] + times * (self._cpu[-1] - self._cpu[-2]), check)
        self._host[-1] = time.perf_counter()

    def reached(self) -> None:
        """Nothing is enqueued here."""

    def readings(self) -> Readings:
        """What was read, slot by slot."""
        start, end = self._host[::2], self._host[1::2]
        cost = [max(after - before, 0.0) for before, after in zip(self._cpu[::2], self._cpu[1::2], strict=True)]
        return Readings(start, end, start, end, cost)


class NoMeter:
    """Times nothing."""

    def begin(self) -> None:
        """A slot starts."""

    def end(self) -> None:
        """The slot is done."""

    def hold(self, times: float, check: Callable[[], None]) -> None:
        """No one knows what it cost."""

    def reached(self) -> None:
        """No one has looked."""

    def readings(self) -> Readings:
        """Nothing."""
        return Readings()


class CudaMeter:
    """CUDA events on the current stream, anchored to host time by an event that was waited for."""

    def __init__(self, device: torch.device, shared: threading.Lock | None) -> None:
        self._device, self._shared = device, shared
        self._slots: list[tuple[float, float, torch.cuda.Event, torch.cuda.Event]] = []
        self._held: dict[int, float] = {}
        """By slot, seconds that it was held beyond its end."""
        self._anchor = torch.cuda.Event(enable_timing=True)
        self._anchor.record(torch.cuda.current_stream(device))
        self._anchor.synchronize()
        self._anchor_host = time.perf_counter()
        self._host_start, self._done = 0.0, 0
        self._start = self._anchor

    def begin(self) -> None:
        """A slot starts: take the GPU if others use it, then mark the stream."""
        start = torch.cuda.Event(enable_timing=True)
        if self._shared is not None:
            self._shared.acquire()
        try:
            self._host_start = time.perf_counter()
            start.record(torch.cuda.current_stream(self._device))
        except BaseException:
            self._release()
            raise
        self._start = start

    def end(self) -> None:
        """The slot is enqueued; where the GPU is shared, wait until it is done and let the next one in."""
        try:
            end = torch.cuda.Event(enable_timing=True)
            end.record(torch.cuda.current_stream(self._device))
            if self._shared is not None:
                end.synchronize()
        finally:  # an error on the device must not leave the others waiting for it
            self._release()
        self._slots.append((self._host_start, time.perf_counter(), self._start, end))

    def hold(self, times: float, check: Callable[[], None]) -> None:
        """Let the slot that has just ended last ``times`` what it cost: nothing more is enqueued before."""
        host_start, _, start, end = self._slots[-1]
        end.synchronize()
        cost = start.elapsed_time(end) / 1e3
        began = self._anchor_host + self._anchor.elapsed_time(start) / 1e3
        sleep_until(began + times * cost, check)
        self._slots[-1] = host_start, time.perf_counter(), start, end
        self._held[len(self._slots) - 1] = self._slots[-1][1] - began - cost

    def _release(self) -> None:
        if self._shared is not None:
            self._shared.release()

    def reached(self) -> tuple[int, bool] | None:
        """The first slot that is not done, and whether it has begun."""
        while self._done < len(self._slots) and self._slots[self._done][3].query():
            self._done += 1
        return (self._done, self._slots[self._done][2].query()) if self._done < len(self._slots) else None

    def readings(self) -> Readings:
        """What was read, slot by slot, once the device has finished them."""
        found = Readings()
        for number, (host_start, host_end, start, end) in enumerate(self._slots):
            end.synchronize()
            began = self._anchor_host + self._anchor.elapsed_time(start) / 1e3
            cost = start.elapsed_time(end) / 1e3
            for column, value in zip(
                (found.host_start, found.host_end, found.start, found.end, found.cost),
                (host_start, host_end, began, began + cost + self._held.get(number, 0.0), cost),
                strict=True,
            ):
                column.append(value)
        return found


def sleep_until(ready: float, check: Callable[[], None]) -> None:
    """Wait until the host's clock shows ``ready``; ``check`` is called now and then, and may end the wait."""
    while (left := ready - time.perf_counter()) > 0:
        time.sleep(min(left, 0.05))
        check()


def make_meter(device: torch.device, shared: threading.Lock | None, *, alone: bool = False) -> SlotMeter:
    """The meter for a device; ``shared`` is the lock of a processor that several devices use.

    ``alone``: it is the only one that this process drives.
    """
    return CudaMeter(device, shared) if device.type == "cuda" else CpuMeter(shared, alone=alone)
