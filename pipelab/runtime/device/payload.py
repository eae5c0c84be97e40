"""What travels between stages: a tensor or a tuple of tensors, and which of them take a gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipelab.errors import ConfigurationError
from pipelab.schedules.action import Action

__all__ = ["Payload", "describe", "flatten"]


@dataclass(slots=True)
class Payload:
    """Tensors of one message. ``single`` tells a lone tensor from a tuple of one."""

    tensors: tuple[Tensor, ...]
    single: bool
    takes_gradient: tuple[bool, ...]
    producer: Action
    sent: float = 0.0
    taken: float = 0.0
    ready: float = 0.0
    """Host time before which a modelled link has not delivered it."""

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors)

    def copy_to(self, device: torch.device) -> Payload:
        """A copy in memory of its own on ``device``, as a wire would make it."""
        # Towards the CPU the copy must be done before its data is used; towards a GPU the stream sees to that.
        waits = device.type == "cuda"
        tensors = tuple(tensor.detach().to(device, non_blocking=waits, copy=True) for tensor in self.tensors)
        return Payload(tensors, self.single, self.takes_gradient, self.producer)


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
