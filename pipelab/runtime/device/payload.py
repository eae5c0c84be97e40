"""What travels between stages: a tensor or a tuple of tensors, and which of them take a gradient."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
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
    ``packed``: the dtype of each tensor that travels in another form, None of one that does not; empty if none does.
    ``saved``: of a message that was packed on its way, how many bytes fewer it took.
    """

    tensors: tuple[Tensor, ...]
    single: bool
    takes_gradient: tuple[bool, ...]
    ready: float = math.nan
    packed: tuple[torch.dtype | None, ...] = ()
    saved: int = 0

    @property
    def size(self) -> int:
        """Bytes."""
        return sum([tensor.numel() * tensor.element_size() for tensor in self.tensors])

    def copy_to(self, device: torch.device) -> Payload:
        """A copy in memory of its own on ``device``."""
        with torch.no_grad():
            tensors = tuple([_copied(tensor, device) for tensor in self.tensors])
        return Payload(tensors, self.single, self.takes_gradient, packed=self.packed)

    def pack(self, compression: str) -> Payload:
        """What travels in its place on a link with that ``compression`` (see ``Link``)."""
        way = {"bf16": _to_bf16, "int8": _to_int8}[compression]
        # Gradients are there only for tensors that take one, so they may be fewer.
        takes = self.takes_gradient if len(self.takes_gradient) == len(self.tensors) else (True,) * len(self.tensors)
        with torch.no_grad():
            parts = [
                way(tensor) if one and _is_packed(tensor, compression) else (tensor,)
                for one, tensor in zip(takes, self.tensors, strict=True)
            ]
        packed = [None if part[0] is tensor else tensor.dtype for part, tensor in zip(parts, self.tensors, strict=True)]
        tensors = tuple([tensor for part in parts for tensor in part])
        return Payload(tensors, self.single, self.takes_gradient, packed=tuple(packed) if any(packed) else ())

    def unpack(self) -> Payload:
        """The message that was packed."""
        if not self.packed:
            return self
        rest = iter(self.tensors)
        with torch.no_grad():
            tensors = tuple([next(rest) if dtype is None else _unpacked(rest, dtype) for dtype in self.packed])
        made = Payload(tensors, self.single, self.takes_gradient, self.ready)
        made.saved = made.size - self.size
        return made


def _is_packed(tensor: Tensor, compression: str) -> bool:
    """Whether it is made of floating-point numbers, and packed takes fewer bytes."""
    if not tensor.is_floating_point() or tensor.layout != torch.strided or not tensor.numel():
        return False
    size = tensor.element_size()
    if compression == "bf16":
        return size > 2
    row = tensor.shape[-1] if tensor.dim() else 1
    return row + _scale_type(tensor).itemsize < row * size


def _scale_type(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _to_bf16(tensor: Tensor) -> tuple[Tensor, ...]:
    return (tensor.to(torch.bfloat16),)


def _to_int8(tensor: Tensor) -> tuple[Tensor, ...]:
    """(codes from -127 to 127, the scale of each row). A row with nan or infinity has the scale nan: all of it is."""
    wide = tensor.to(_scale_type(tensor))
    scale = wide.abs().amax(-1, keepdim=True) / 127
    scale.masked_fill_(scale.isinf(), math.nan)
    codes = (wide / scale).round_().clamp_(-127, 127).nan_to_num_(0.0)  # nan also where all of the row is 0
    return codes.to(torch.int8), scale


def _unpacked(rest: Iterator[Tensor], dtype: torch.dtype) -> Tensor:
    codes = next(rest)
    if codes.dtype != torch.int8:
        return codes.to(dtype)
    scale = next(rest)
    return codes.to(scale.dtype).mul_(scale).to(dtype)


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
