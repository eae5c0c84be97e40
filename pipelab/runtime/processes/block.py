"""Tensors in memory that two processes of one machine share.

The memory is a file without a name: it is passed on as an open file, and is gone with the last process that has it.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from pipelab.runtime.device.payload import flatten
from pipelab.runtime.processes.carry import pack, unpack

__all__ = [
    "Block",
    "Feed",
    "Spec",
    "batch_in_block",
    "copy_all",
    "nameless_file",
    "pack_with_tensors",
    "specs_of",
    "unpack_with_tensors",
]

Spec = tuple[tuple[int, ...], torch.dtype]
Feed = tuple[tuple[Spec, ...], int, bool, int, bool]
"""Specs, number of inputs, whether they are one lone tensor; the same of targets."""
_ALIGNED = 64


class Block:
    """Room for tensors of the given shapes and dtypes; ``tensors`` are views of it. Without ``file`` it is made."""

    def __init__(self, specs: Sequence[Spec], file: int | None = None) -> None:
        self.specs = tuple(specs)
        starts, size = [], 0
        for shape, dtype in self.specs:
            starts.append(size)
            size += -(-torch.Size(shape).numel() * dtype.itemsize // _ALIGNED) * _ALIGNED
        self.file = nameless_file(max(size, 1)) if file is None else file
        memory = mmap.mmap(self.file, max(size, 1))
        with torch.inference_mode(False):
            self.tensors = [_seen(memory, start, spec) for start, spec in zip(starts, self.specs, strict=True)]
        self.addresses = [tensor.data_ptr() for tensor in self.tensors]

    @classmethod
    def holding(cls, tensors: Sequence[Tensor]) -> Block:
        """A block with copies of ``tensors``."""
        block = cls(specs_of(tensors))
        block.fill(tensors)
        return block

    def fill(self, tensors: Sequence[Tensor]) -> None:
        """Copy ``tensors`` in."""
        copy_all(zip(tensors, self.tensors, strict=True))

    def beside(self, tensors: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """(tensor, its twin here), but for those that are here themselves."""
        told = zip(tensors, self.tensors, self.addresses, strict=True)
        return [(own, shared) for own, shared, address in told if own.data_ptr() != address]

    def __del__(self) -> None:
        file = getattr(self, "file", None)
        if file is not None:
            os.close(file)


def _seen(memory: mmap.mmap, start: int, spec: Spec) -> Tensor:
    """A tensor of its own in ``memory``: views of one would share one version, which in-place changes move."""
    shape, dtype = spec
    size = torch.Size(shape).numel() * dtype.itemsize
    if not size:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(memory, dtype=torch.uint8, offset=start, count=size).view(dtype).view(shape)


def specs_of(tensors: Sequence[Tensor]) -> tuple[Spec, ...]:
    """Shapes and dtypes."""
    return tuple((tuple(tensor.shape), tensor.dtype) for tensor in tensors)


def nameless_file(size: int) -> int:
    """An open file of ``size`` bytes in memory, or as near to it as the system has."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("pipelab")
    else:
        with tempfile.TemporaryFile() as made:
            file = os.dup(made.fileno())
    os.ftruncate(file, size)
    return file


def copy_all(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Copy each (source, target), all of them in one call."""
    pairs = list(pairs)
    if pairs:
        with torch.no_grad():
            torch._foreach_copy_([target for _, target in pairs], [source for source, _ in pairs])


def batch_in_block(inputs: Any, targets: Any, known: Block | None) -> tuple[Feed | None, Block | None]:
    """(what to tell of inputs and targets, the block that they are in: ``known`` where it fits); None for neither."""
    x, lone = flatten(inputs, "inputs") if inputs is not None else ((), False)
    y, lone_target = flatten(targets, "targets") if targets is not None else ((), False)
    given = [tensor.detach() for tensor in (*x, *y)]
    if not given:
        return None, None
    block = known if known is not None and known.specs == specs_of(given) else Block(specs_of(given))
    block.fill(given)
    return (block.specs, len(x), lone, len(y), lone_target), block


def pack_with_tensors(value: Any, name: str) -> tuple[bytes, tuple[Spec, ...], Block]:
    """(bytes, specs, block): ``value`` with its dense tensors in a block."""
    tensors: list[Tensor] = []

    def stand_in(obj: Any) -> Any:
        if type(obj) is not Tensor or obj.layout != torch.strided:
            return None
        tensors.append(obj)
        return len(tensors) - 1

    data = pack(value, name, stand_in)
    block = Block.holding(tensors)
    return data, block.specs, block


def unpack_with_tensors(data: bytes, specs: Sequence[Spec], file: int) -> Any:
    """What :func:`pack_with_tensors` packed, with tensors of its own."""
    block = Block(specs, file)
    own: Callable[[int], Tensor] = lambda number: block.tensors[number].clone()  # noqa: E731
    return unpack(data, own)
