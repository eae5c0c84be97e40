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
from dataclasses import dataclass
from typing import Protocol

import torch

__all__ = ["CpuMeter", "CudaMeter", "Reading", "SlotMeter", "make_meter"]


@dataclass(slots=True)
class Reading:
    """One slot: host times at which it began and ended, times of the work itself, and what it cost (seconds)."""

    host_start: float
    host_end: float
    start: float
    end: float
    cost: float


class SlotMeter(Protocol):
    """Times the slots of one device."""

    def begin(self) -> None:
        """A slot starts."""
        ...

    def end(self) -> None:
        """The slot is done (on a GPU: enqueued)."""
        ...

    def readings(self) -> list[Reading]:
        """One reading per slot, in order; waits for the device if it must."""
        ...


class CpuMeter:
    """Thread CPU time.

    Where it holds its processor (``alone``: shared by no one in this process) Python's garbage collection waits for the
    end of the slot: a full one takes longer than many a slot, and which slot it falls into says nothing of the stage.
    """

    def __init__(self, shared: threading.Lock | None = None, *, alone: bool = False) -> None:
        self._shared, self._quiet = shared, alone or shared is not None
        self._collects = False
        self._readings: list[Reading] = []
        self._started = (0.0, 0.0)

    def begin(self) -> None:
        """A slot starts, when it is its turn."""
        if self._shared is not None:
            self._shared.acquire()
        if self._quiet:
            self._collects = gc.isenabled()
            gc.disable()
        self._started = (time.perf_counter(), time.thread_time())

    def end(self) -> None:
        """The slot is done."""
        cpu, host = time.thread_time(), time.perf_counter()
        if self._quiet and self._collects:
            gc.enable()
        if self._shared is not None:
            self._shared.release()
        host_start, cpu_start = self._started
        self._readings.append(Reading(host_start, host, host_start, host, cpu - cpu_start))

    def readings(self) -> list[Reading]:
        """One reading per slot, in order."""
        return self._readings


class CudaMeter:
    """CUDA events on the current stream, anchored to host time by an event that was waited for."""

    def __init__(self, device: torch.device, shared: threading.Lock | None) -> None:
        self._device, self._shared = device, shared
        self._slots: list[tuple[float, float, torch.cuda.Event, torch.cuda.Event]] = []
        self._anchor = torch.cuda.Event(enable_timing=True)
        self._anchor.record(torch.cuda.current_stream(device))
        self._anchor.synchronize()
        self._anchor_host = time.perf_counter()
        self._host_start = 0.0
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

    def _release(self) -> None:
        if self._shared is not None:
            self._shared.release()

    def readings(self) -> list[Reading]:
        """One reading per slot, in order, once the device has finished them."""
        result = []
        for host_start, host_end, start, end in self._slots:
            end.synchronize()
            began = self._anchor_host + self._anchor.elapsed_time(start) / 1e3
            cost = start.elapsed_time(end) / 1e3
            result.append(Reading(host_start, host_end, began, began + cost, cost))
        return result


def make_meter(device: torch.device, shared: threading.Lock | None, *, alone: bool = False) -> SlotMeter:
    """The meter for a device; ``shared`` is the lock of a processor that several devices use.

    ``alone``: it is the only one that this process drives.
    """
    return CudaMeter(device, shared) if device.type == "cuda" else CpuMeter(shared, alone=alone)
