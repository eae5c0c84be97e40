"""Activation bytes that one device really holds.

Counted are the tensors that autograd saves (each storage once, parameters and buffers left out), the inputs that the
runtime keeps for a backward, and messages that were taken off the wire and not used yet. The figure is read from
the tensors themselves, on CPU and GPU alike.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["AllocatorPeak", "MemoryMeter", "Sample", "WallError"]


@dataclass(slots=True)
class Sample:
    """Bytes around one slot: the most while it ran, and what was held after it."""

    peak: int
    after: int


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
        self._count: dict[int, int] = {}
        self._ours: set[int] = set()
        # Saved tensors of a GPU are let go on autograd's own thread, and messages arrive on the sender's.
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
            self._room = room

    def hooks(self) -> torch.autograd.graph.saved_tensors_hooks:
        """Context in which what autograd saves is counted until it lets go of it."""
        return torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack)

    def hold(self, tensors: Iterable[Tensor]) -> list[_Held]:
        """Count ``tensors`` for as long as the returned list is kept."""
        if not self.enabled:
            return []
        return [_Held(self, storage) for tensor in tensors for storage in _storages(tensor)]

    def begin_slot(self) -> None:
        """Forget the peak of the slot before."""
        with self._lock:
            self._slot_peak = self.held

    def end_slot(self) -> Sample:
        """The sample of the slot that began at :meth:`begin_slot`."""
        with self._lock:
            return Sample(self._slot_peak, self.held)

    def _pack(self, tensor: Tensor) -> Any:
        return _Saved(tensor, [_Held(self, s) for s in _storages(tensor) if s.data_ptr() not in self._ours])

    def _add(self, key: int, size: int) -> int:
        """Count it; returns the number of the step that it belongs to."""
        with self._lock:
            count = self._count.get(key, 0)
            if count == 0:
                if self.held + size > self._room:
                    raise WallError(self.held + size)
                self.held += size
                self.peak = max(self.peak, self.held)
                self._slot_peak = max(self._slot_peak, self.held)
            self._count[key] = count + 1
            return self._step

    def _drop(self, key: int, size: int, step: int) -> None:
        with self._lock:
            if step != self._step:
                return
            count = self._count[key] - 1
            if count:
                self._count[key] = count
            else:
                del self._count[key]
                self.held -= size


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
        self.step = meter._add(self.key, self.size)
        self.meter = meter  # only what was counted is dropped

    def __del__(self) -> None:
        meter = getattr(self, "meter", None)
        if meter is not None:
            meter._drop(self.key, self.size, self.step)


class _Saved:
    """A saved tensor with the version at which it was saved: hooks switch off autograd's own check of that."""

    __slots__ = ("held", "tensor", "version")

    def __init__(self, tensor: Tensor, held: list[_Held]) -> None:
        # Detached: a saved output would otherwise hold the graph that holds it, for ever if no backward comes.
        self.tensor, self.version, self.held = tensor.detach(), tensor._version, held


def _storages(tensor: Tensor) -> tuple[torch.UntypedStorage, ...]:
    """The memory behind a tensor: one storage, of a sparse one those of its parts."""
    if tensor.layout == torch.strided:
        return (tensor.untyped_storage(),)
    if tensor.layout == torch.sparse_coo:
        return (tensor._indices().untyped_storage(), tensor._values().untyped_storage())
    return ()


def _unpack(saved: _Saved) -> Tensor:
    if saved.tensor._version != saved.version:
        shape = list(saved.tensor.shape)
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an inplace operation: a tensor "
            f"of shape {shape} was saved at version {saved.version} and is now at version {saved.tensor._version}"
        )
    return saved.tensor
