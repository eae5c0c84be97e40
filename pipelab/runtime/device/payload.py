"""What travels between stages: a tensor or a tuple of tensors, and which of them take a gradient."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipelab.errors import ConfigurationError

__all__ = ["Payload", "describe", "flatten", "placed", "version_of"]


@dataclass(slots=True)
class Payload:
    """Tensors of one message. ``single`` tells a lone tensor from a tuple of one.

    ``ready`` is the host time before which a modelled link has not delivered it; nan where no one knows when it came.
    """

    tensors: tuple[Tensor, ...]
    single: bool
    takes_gradient: tuple[bool, ...]
    ready: float = math.nan

    @property
    def size(self) -> int:
        """Bytes."""
        return sum([tensor.numel() * tensor.element_size() for tensor in self.tensors])

    def copy_to(self, device: torch.device) -> Payload:
        """A copy in memory of its own on ``device``."""
        with torch.no_grad():
            tensors = tuple([_copied(tensor, device) for tensor in self.tensors])
        return Payload(tensors, self.single, self.takes_gradient)


def _copied(tensor: Tensor, device: torch.device) -> Tensor:
    if tensor.device == device:
        return tensor.clone()
    # Towards the CPU the copy must be done before its data is used; towards a GPU the stream sees to that.
    return tensor.to(device, non_blocking=device.type == "cuda", copy=True)


def version_of(tensors: Iterable[Tensor]) -> int:
    """How often they have been written into, all together."""
    return sum([tensor._version for tensor in tensors])


def flatten(value: Any, who: str) -> tuple[tuple[Tensor, ...], bool]:
    """(tensors, whether it was a lone tensor).

    Raises ConfigurationError for anything but tensors and tuples of them.
    """
    if isinstance(value, Tensor):
        return (value,), True
    if isinstance(value, tuple | list) and value and all(isinstance(item, Tensor) for item in value):
        return tuple(value), False
    raise ConfigurationError(f"{who} must be a tensor or a tuple of tensors, got {_kind(value)}")


def _kind(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} of {', '.join(type(item).__name__ for item in value) or 'nothing'}"
    return type(value).__name__


def describe(tensors: Sequence[Tensor]) -> str:
    """Shapes and dtypes, for messages: ``float32[16, 32, 64]``."""
    parts = [f"{str(t.dtype).removeprefix('torch.')}{list(t.shape)}" for t in tensors]
    return parts[0] if len(parts) == 1 else f"({', '.join(parts)})"


def placed(targets: Any, device: torch.device) -> Any:
    """Targets where the output is; those made in inference mode as copies that autograd may save."""

    def one(tensor: Tensor) -> Tensor:
        moved = tensor if tensor.device == device else tensor.to(device)
        return moved.clone() if moved.is_inference() else moved

    return one(targets) if isinstance(targets, Tensor) else tuple(map(one, targets))
