"""Tensors in memory that two processes of one machine share.

The memory is a file without a name: it is passed on as an open file, and is gone with the last process that has it.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pipelab.runtime.processes.carry import pack, unpack

__all__ = ["Block", "Spec", "pack_with_tensors", "unpack_with_tensors"]

Spec = tuple[tuple[int, ...], torch.dtype]
_ALIGNED = 64


class Block:
    """Room for tensors of the given shapes and dtypes; ``tensors`` are views of it. Without ``file`` it is made."""

    def __init__(self, specs: Sequence[Spec], file: int | None = None) -> None:
        self.specs = tuple(specs)
        starts, size = [], 0
        for shape, dtype in self.specs:
            starts.append(size)
            size += -(-torch.Size(shape).numel() * dtype.itemsize // _ALIGNED) * _ALIGNED
        self.file = _nameless_file(max(size, 1)) if file is None else file
        memory = mmap.mmap(self.file, max(size, 1))
        with torch.inference_mode(False):
            self.tensors = [_seen(memory, start, spec) for start, spec in zip(starts, self.specs, strict=True)]

    @classmethod
    def holding(cls, tensors: Sequence[Tensor]) -> Block:
        """A block with copies of ``tensors``."""
        block = cls(specs_of(tensors))
        block.fill(tensors)
        return block

    def fill(self, tensors: Sequence[Tensor]) -> None:
        """Copy ``tensors`` in."""
        for own, given in zip(self.tensors, tensors, strict=True):
            own.copy_(given.detach())

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


def _nameless_file(size: int) -> int:
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("pipelab")
    else:
        with tempfile.TemporaryFile() as made:
            file = os.dup(made.fileno())
    os.ftruncate(file, size)
    return file


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
