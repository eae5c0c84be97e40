"""A tensor that several processes hold in parts (a DTensor), and others, treated alike.

Nothing here loads ``torch.distributed``: who has made such a tensor has done that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["is_gathered", "is_split", "like", "local", "parts_of", "whole", "with_part"]

_PLAIN = (Tensor, nn.Parameter)


def is_split(tensor: Any) -> bool:
    """Whether several processes hold it, in parts or in copies that belong together."""
    return hasattr(tensor, "full_tensor")


def is_gathered(module: nn.Module) -> bool:
    """Whether its weights are gathered when it runs (``fully_shard``)."""
    return any(hasattr(inner, "unshard") for inner in module.modules())


def local(tensor: Tensor) -> Tensor:
    """What this process holds of it. Outside of autograd."""
    if not is_split(tensor):
        return tensor
    with torch.no_grad():
        part: Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return part


def parts_of(tensor: Tensor) -> Iterator[Tensor]:
    """The tensors with memory of their own that it stands for: itself, if it is no wrapper around others."""
    if type(tensor) in _PLAIN or not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
    else:
        for name in tensor.__tensor_flatten__()[0]:
            inner = getattr(tensor, name)
            if isinstance(inner, Tensor):  # and no mesh
                yield from parts_of(inner)


def with_part(tensor: Tensor, part: Tensor) -> Tensor:
    """A tensor as ``tensor`` is held, of which this process holds ``part``."""
    if not is_split(tensor):
        return part
    made = torch.empty_like(tensor, requires_grad=False)
    local(made).copy_(part)
    return made


def whole(tensor: Tensor) -> Tensor:
    """All of it. Of one that is split all processes that hold it make this call, in the same order."""
    if not is_split(tensor):
        return tensor
    with torch.no_grad():
        full: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return full


def like(tensor: Tensor, full: Tensor) -> Tensor:
    """``full`` as ``tensor`` is held: a copy of this process's part of it, of the same kind. Nothing is sent."""
    if not is_split(tensor) or is_split(full) or full.shape != tensor.shape:
        return full
    from torch.distributed.tensor import distribute_tensor

    held: Any = tensor
    return distribute_tensor(full.to(held.device), held.device_mesh, held.placements, src_data_rank=None).clone()
