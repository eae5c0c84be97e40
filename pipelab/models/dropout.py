"""Dropout whose masks depend on what they are for, not on who draws them when.

The process has one CPU random generator, and pipeline workers would draw from it in any order. Here each mask bit is a
hash of (seed, step, layer, sequence, place in the sequence): the same for any p, m, schedule, launch, for a
recomputed forward, on any device, and for the unsplit model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipelab.errors import ConfigurationError

__all__ = ["KeyedDropout", "dropout_key", "set_dropout_key"]

_MASK = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9


class _Key(NamedTuple):
    seed: int
    step: int
    first_sequence: int


_current: ContextVar[_Key | None] = ContextVar("pipelab_dropout_key", default=None)


@contextmanager
def dropout_key(seed: int, step: int, first_sequence: int = 0) -> Iterator[None]:
    """Key all KeyedDropout masks drawn inside: row k of a tensor is sequence ``first_sequence + k`` of the batch.

    The unsplit model runs under ``dropout_key(seed, step)`` to drop exactly what a Pipeline with this seed drops in
    its step number ``step``.
    """
    token = _current.set(_Key(seed, step, first_sequence))
    try:
        yield
    finally:
        _current.reset(token)


def set_dropout_key(seed: int, step: int, first_sequence: int) -> None:
    """Key what follows in this context, as :func:`dropout_key` does, until another key is set."""
    _current.set(_Key(seed, step, first_sequence))


def _mix_int(x: int) -> int:
    """The 32-bit finaliser of MurmurHash3 (Appleby, public domain), on one number."""
    x &= _MASK
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & _MASK
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & _MASK
    return x ^ (x >> 16)


def _mix(x: Tensor) -> Tensor:
    """The same on a tensor of int64: the product wraps around, its low 32 bits are right all the same."""
    x = x & _MASK
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & _MASK
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & _MASK
    return x ^ (x >> 16)


class KeyedDropout(nn.Module):
    """Dropout with keyed masks. ``layer`` must differ between the dropouts of a model.

    Outside :func:`dropout_key` it draws like ``nn.Dropout``. The first dimension of its input is the batch. Raises
    ConfigurationError where a backward runs it again and the key of its forward cannot be known there.
    """

    def __init__(self, p: float, layer: int) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ConfigurationError(f"dropout must be at least 0 and below 1, got {p!r}; try 0.1")
        self.p, self.layer = float(p), layer
        self.part = 0
        """Which of the equal parts of a sequence its input is, where processes share sequences out."""
        self._was_keyed = False

    def forward(self, x: Tensor) -> Tensor:
        """Zero elements with probability p and scale the rest by 1 / (1 - p), in training mode."""
        if not self.training or self.p == 0:
            return x
        key = _current.get()
        again = torch._C._current_graph_task_id() != -1  # a backward runs parts of the forward again
        if key is None and again and self._was_keyed:
            raise ConfigurationError(
                "KeyedDropout is run again in a backward where its key does not reach it (torch.utils.checkpoint on a "
                "GPU, or a backward outside dropout_key()): it would drop others than before; recompute with a "
                "schedule that has R, or call backward() inside dropout_key()"
            )
        self._was_keyed = self._was_keyed if again else key is not None
        if key is None:
            return nn.functional.dropout(x, self.p, training=True)
        with torch.no_grad():
            base = _mix_int(_mix_int(_mix_int(key.seed) + key.step * _GOLDEN) + self.layer * _GOLDEN)
            first = key.first_sequence
            rows = _mix(base + torch.arange(first, first + x.shape[0], device=x.device) * _GOLDEN)
            size = x[0].numel()
            places = _mix((torch.arange(size, device=x.device) + size * self.part) * _GOLDEN)
            bits = _mix(rows[:, None] ^ places[None, :])
            keep = (bits >= int(self.p * 2**32)).view(x.shape).to(x.dtype).mul_(1 / (1 - self.p))
        return x * keep

    def extra_repr(self) -> str:
        """Shown in the module's repr."""
        return f"p={self.p}, layer={self.layer}"
