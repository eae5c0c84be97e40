"""Activation bytes that one device really holds.

Counted are the tensors that autograd saves (each storage once, parameters and buffers left out), the inputs that the
runtime keeps for a backward, and messages that were taken off the wire and not used yet. Of a tensor that several
processes hold, the part that is here. Weights that are gathered for a stage to run (FSDP2) count, as long as they stay.
The figure is read from the tensors themselves, on CPU and GPU alike.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from operator import attrgetter
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.autograd.graph import Node

from pipelab.models.shards import parts_of

__all__ = ["NOTHING_COUNTED", "AllocatorPeak", "MemoryMeter", "NothingCounted", "SavedTensors", "WallError"]


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
        self._sizes: dict[int, int] = {}
        """The storages held: address and bytes."""
        self._more: Counter[int] = Counter()
        """By how many more than one they are held."""
        self._ours: set[int] = set()
        self._done: Container[Node] = ()
        self._lingering: list[SavedTensors] = []

    def reset(self, own: Iterable[Tensor], room: float = math.inf, *, keep: bool = False) -> None:
        """Begin a step. ``own`` are parameters and buffers, which do not count as activations.

        Holding more than ``room`` bytes raises WallError. ``keep``: what is held now is part of this step too.
        """
        mine = own if self.enabled else ()
        self._ours = {storage.data_ptr() for tensor in mine for storage in _storages(tensor)}
        if not keep:
            self._step += 1  # what an error of an earlier step keeps alive is no part of this one
            self._sizes, self._more, self._lingering = {}, Counter(), []
            self.held = 0
        self.peak = self._slot_peak = self.held
        self.peaks, self.after = [], []
        self._room = room

    def add_own(self, tensors: Iterable[Tensor]) -> None:
        """These too are no activations: a version of the weights."""
        if self.enabled:
            self._ours |= {storage.data_ptr() for tensor in tensors for storage in _storages(tensor)}

    def forget_own(self, tensors: Iterable[Tensor]) -> None:
        """Their memory is about to be let go of, and may come back as something else's."""
        self._ours -= {storage.data_ptr() for tensor in tensors for storage in _storages(tensor)}

    def saving(self, *, boxed: bool = False) -> SavedTensors | NothingCounted:
        """Context in which what autograd saves, for one graph, is counted until it lets go of it.

        ``boxed``: the graph can let go of a part (:meth:`letting_go`), at some cost.
        """
        return SavedTensors(self, boxed) if self.enabled else NOTHING_COUNTED

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
        return [_Held(self, [storage for tensor in tensors for storage in _storages(tensor)])]

    def settle(self) -> int:
        """See what graphs that are over have let go of by now; returns the bytes held."""
        if self._lingering:
            self._lingering = [saved for saved in self._lingering if saved.settle()]
        return self.held

    def begin_slot(self) -> None:
        """Forget the peak of the slot before."""
        self._slot_peak = self.settle()

    def end_slot(self) -> None:
        """Note down the slot that began at :meth:`begin_slot`."""
        self.peaks.append(self._slot_peak)
        self.after.append(self.held)

    def _add(self, sizes: dict[int, int]) -> None:
        """One more holds these storages, by address."""
        again = () if self._sizes.keys().isdisjoint(sizes) else sizes.keys() & self._sizes.keys()
        held = self.held + sum(sizes.values()) - sum([sizes[key] for key in again])
        if held > self._room:
            raise WallError(held)
        if again:
            self._more.update(again)
        self._sizes.update(sizes)
        self.held = held
        if held > self._slot_peak:
            self._slot_peak = held
            self.peak = max(self.peak, held)

    def _drop(self, keys: Iterable[int]) -> None:
        """One less."""
        for key in keys:
            if self._more and self._more.get(key):
                self._more[key] -= 1
            else:
                self.held -= self._sizes.pop(key)

    def _unbox(self, box: list[Tensor | None]) -> Tensor:
        """The tensor in the box, for the last time if the node that asks is one to let go."""
        tensor = box[0]
        if tensor is None:
            raise RuntimeError("what a node saved was let go of when it ran, and the node is asked again")
        if self._done and _asked_by_engine() and torch._C._current_autograd_node() in self._done:
            box[0] = None
        return tensor


class SavedTensors(torch.autograd.graph.saved_tensors_hooks):
    """Counts what autograd saves inside it, and what it has let go of since.

    The hooks run once for each tensor, in the middle of a forward and of a backward, where ten microseconds each are a
    tenth of the step of a small model. So they note down no more than they must, a weak reference and a version, and
    :meth:`settle` counts all tensors at once. Only where there is a wall is each one counted as it comes.
    """

    def __init__(self, meter: MemoryMeter, boxed: bool) -> None:
        saved: list[ref[Tensor]] = []
        versions: list[int] = []
        changed: dict[int, str] = {}
        count = self._count if meter._room < math.inf else None

        def pack(tensor: Tensor) -> Tensor:
            # Detached: a saved output would otherwise hold the graph that holds it, for ever if no backward comes.
            kept = tensor.detach()
            saved.append(ref(kept))
            versions.append(kept._version)
            if count is not None:
                count(kept)
            return kept

        def unpack(kept: Tensor) -> Tensor:
            if changed and id(kept) in changed:
                raise RuntimeError(changed[id(kept)])
            return kept

        if boxed:
            super().__init__(lambda tensor: [pack(tensor)], lambda box: unpack(meter._unbox(box)))
        else:
            super().__init__(pack, unpack)
        self._meter, self._saved, self._versions, self._changed = meter, saved, versions, changed
        self._sizes: dict[int, int] = {}

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if error[0] is None:
            self.settle()

    def settle(self) -> bool:
        """Count what is new, and no longer what autograd has let go of. Returns whether anything is left."""
        alive = self._forget()
        if new := {key: size for key, size in alive.items() if key not in self._sizes}:
            self._meter._add(new)
            self._sizes = alive
        return bool(alive)

    def close(self) -> None:
        """The graph is over; what is still held of it is looked after slot by slot."""
        if self._forget():
            self._meter._lingering.append(self)

    def _forget(self) -> dict[int, int]:
        """No longer count what autograd has let go of; returns what it has not."""
        alive = [tensor for reference in self._saved if (tensor := reference()) is not None]
        sizes = _sizes(alive) if alive else {}
        for key in sizes.keys() & self._meter._ours:
            del sizes[key]
        if self._sizes:
            self._meter._drop(self._sizes.keys() - sizes.keys())
            self._sizes = {key: size for key, size in self._sizes.items() if key in sizes}
        return sizes

    def check(self) -> None:
        """Before a backward: what was changed in place since it was saved is refused to the node that asks for it.

        Hooks switch off autograd's own check of that.
        """
        kept_ones = [reference() for reference in self._saved]
        with suppress(AttributeError):  # of None, where one is gone
            if list(map(_version, kept_ones)) == self._versions:
                return
        for kept, version in zip(kept_ones, self._versions, strict=True):
            if kept is not None and kept._version != version:
                self._changed[id(kept)] = (
                    "one of the variables needed for gradient computation has been modified by an inplace operation: a "
                    f"tensor of shape {list(kept.shape)} was saved at version {version} and is now at version "
                    f"{kept._version}"
                )

    def _count(self, kept: Tensor) -> None:
        """Count one as it comes."""
        ours, known = self._meter._ours, self._sizes
        new = {key: size for key, size in _sizes([kept]).items() if key not in ours and key not in known}
        self._meter._add(new)
        self._sizes.update(new)


class NothingCounted(nullcontext[None]):
    """Stands in for SavedTensors where memory is not measured."""

    def settle(self) -> bool:
        """Nothing is left."""
        return False

    def check(self) -> None:
        """Autograd checks by itself."""

    def close(self) -> None:
        """Nothing is looked after."""


NOTHING_COUNTED = NothingCounted()


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
    """Counts storages while it lives. It keeps them alive, so that their addresses stay their own."""

    __slots__ = ("meter", "step", "storages")

    def __init__(self, meter: MemoryMeter, storages: Sequence[torch.UntypedStorage]) -> None:
        self.storages, self.step = {storage.data_ptr(): storage for storage in storages}, meter._step
        meter._add({key: storage.nbytes() for key, storage in self.storages.items()})
        self.meter = meter  # only what was counted is dropped

    def __del__(self) -> None:
        meter = getattr(self, "meter", None)
        if meter is not None and self.step == meter._step:
            meter._drop(self.storages)


def _sizes(tensors: Sequence[Tensor]) -> dict[int, int]:
    """Their storages: address and bytes."""
    try:
        if not _PLAIN.issuperset(map(type, tensors)):
            raise NotImplementedError
        storages = list(map(torch.Tensor.untyped_storage, tensors))
    except NotImplementedError:  # a sparse one is among them, or one that stands for others
        storages = [storage for tensor in tensors for storage in _storages(tensor)]
    return dict(zip(map(_address, storages), map(_bytes, storages), strict=True))


_PLAIN = {Tensor, torch.nn.Parameter}
_address, _bytes, _version = torch.UntypedStorage.data_ptr, torch.UntypedStorage.nbytes, attrgetter("_version")


def _storages(tensor: Tensor) -> tuple[torch.UntypedStorage, ...]:
    """The memory behind a tensor: one storage, of a sparse one and of a wrapper (a DTensor) those of its parts."""
    parts = tuple(parts_of(tensor))
    if parts[0] is not tensor:
        return tuple(storage for part in parts for storage in _storages(part))
    if tensor.layout == torch.strided:
        return (tensor.untyped_storage(),)
    if tensor.layout == torch.sparse_coo:
        return (tensor._indices().untyped_storage(), tensor._values().untyped_storage())
    return ()


def _asked_by_engine() -> bool:
    """Whether a node asks for what it saved itself, and not somebody's Python code while it runs (a checkpoint)."""
    caller = sys._getframe(2).f_back  # behind the hook; none on a thread of autograd's own
    return caller is None or caller.f_code.co_name == "_engine_run_backward"
