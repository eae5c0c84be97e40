"""Activation bytes that one device really holds.

Counted are the tensors that autograd saves (each storage once, parameters and buffers left out), the inputs that the
runtime keeps for a backward, and messages that were taken off the wire and not used yet. The figure is read from
the tensors themselves, on CPU and GPU alike.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

__all__ = ["AllocatorPeak", "MemoryMeter", "WallError"]


class WallError(Exception):
    """Holding ``held`` bytes would be more than there is room for. Workers say where and when."""

    def __init__(self, held: int) -> None:
        super().__init__(held)
        self.held = held


class MemoryMeter:
    """Counts bytes held by one device. ``peak`` is the most since :meth:`reset`, which may set a limit on them."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.enabled = enabled
        self.held = 0
        self.peak = 0
        self._room = math.inf
        self._step = 0
        self._slot_peak = 0
        self.peaks: list[int] = []
        """Slot by slot, the most bytes while it ran."""
        self.after: list[int] = []
        """Slot by slot, what was held after it."""
        self._count: dict[int, int] = {}
        self._ours: set[int] = set()
        self._done: Container[Node] = ()
        # Saved tensors of a GPU are let go on autograd's own thread.
        self._lock = threading.RLock()

    def reset(self, own: Iterable[Tensor], room: float = math.inf) -> None:
        """Begin a step. ``own`` are parameters and buffers, which do not count as activations.

        Holding more than ``room`` bytes raises WallError.
        """
        with self._lock:
            mine = own if self.enabled else ()
            self._ours = {storage.data_ptr() for tensor in mine for storage in _storages(tensor)}
            self._step += 1  # what an error of an earlier step keeps alive is no part of this one
            self._count.clear()
            self.held = self.peak = self._slot_peak = 0
            self.peaks, self.after = [], []
            self._room = room

    def hooks(self) -> torch.autograd.graph.saved_tensors_hooks:
        """Context in which what autograd saves is counted until it lets go of it."""
        return torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)

    @contextmanager
    def letting_go(self, nodes: Container[Node]) -> Iterator[None]:
        """Inside, what these nodes of a graph saved is let go of as they run, even if the graph is retained."""
        self._done = nodes
        try:
            yield
        finally:
            self._done = ()

    def hold(self, tensors: Iterable[Tensor]) -> list[_Held]:
        """Count ``tensors`` for as long as the returned list is kept."""
        if not self.enabled:
            return []
        return [_Held(self, storage) for tensor in tensors for storage in _storages(tensor)]

    def begin_slot(self) -> None:
        """Forget the peak of the slot before."""
        self._slot_peak = self.held

    def end_slot(self) -> None:
        """Note down the slot that began at :meth:`begin_slot`."""
        self.peaks.append(self._slot_peak)
        self.after.append(self.held)

    def _pack(self, tensor: Tensor) -> list[Any]:
        # Detached: a saved output would otherwise hold the graph that holds it, for ever if no backward comes.
        kept, version = tensor if tensor.is_leaf else tensor.detach(), tensor._version
        if tensor.layout == torch.strided:  # one storage, as nearly always
            storage = tensor.untyped_storage()
            held: Any = None if storage.data_ptr() in self._ours else _Held(self, storage)
        else:
            held = [_Held(self, s) for s in _storages(tensor) if s.data_ptr() not in self._ours]
        return [kept, version, held]

    def _unpack(self, saved: list[Any]) -> Tensor:
        """The tensor, if its version is still that at which it was saved: hooks switch off autograd's check of that."""
        tensor: Tensor | None = saved[0]
        if tensor is None:
            raise RuntimeError("what a node saved was let go of when it ran, and the node is asked again")
        if tensor._version != saved[1]:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace operation: a "
                f"tensor of shape {list(tensor.shape)} was saved at version {saved[1]} and is now at version "
                f"{tensor._version}"
            )
        if self._done and _asked_by_engine() and torch._C._current_autograd_node() in self._done:
            saved[0] = saved[2] = None
        return tensor


class AllocatorPeak:
    """The CUDA allocator's own figure: its peak from now on, above what it holds now."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        torch.cuda.reset_peak_memory_stats(device)
        self._before = torch.cuda.memory_allocated(device)

    def read(self) -> int:
        """Bytes."""
        return torch.cuda.max_memory_allocated(self._device) - self._before


class _Held:
    """Counts one storage while it lives. It keeps the storage alive, so that its address stays its own."""

    __slots__ = ("key", "meter", "size", "step", "storage")

    def __init__(self, meter: MemoryMeter, storage: torch.UntypedStorage) -> None:
        self.storage, self.key, self.size = storage, storage.data_ptr(), storage.nbytes()
        with meter._lock:
            count = meter._count.get(self.key, 0)
            if not count:
                held = meter.held + self.size
                if held > meter._room:
                    raise WallError(held)
                meter.held = held
                if held > meter._slot_peak:
                    meter._slot_peak = held
                    meter.peak = max(meter.peak, held)
            meter._count[self.key] = count + 1
            self.step = meter._step
        self.meter = meter  # only what was counted is dropped

    def __del__(self) -> None:
        meter = getattr(self, "meter", None)
        if meter is None:
            return
        with meter._lock:
            if self.step == meter._step:
                count = meter._count[self.key] - 1
                if count:
                    meter._count[self.key] = count
                else:
                    del meter._count[self.key]
                    meter.held -= self.size


def _storages(tensor: Tensor) -> tuple[torch.UntypedStorage, ...]:
    """The memory behind a tensor: one storage, of a sparse one those of its parts."""
    if tensor.layout == torch.strided:
        return (tensor.untyped_storage(),)
    if tensor.layout == torch.sparse_coo:
        return (tensor._indices().untyped_storage(), tensor._values().untyped_storage())
    return ()


def _asked_by_engine() -> bool:
    """Whether a node asks for what it saved itself, and not somebody's Python code while it runs (a checkpoint)."""
    caller = sys._getframe(1).f_back  # none on a thread of autograd's own
    return caller is None or caller.f_code.co_name == "_engine_run_backward"
