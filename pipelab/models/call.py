"""How a model is called with what flows through a pipeline, and what of its answer flows on.

Tensors flow; everything else (``use_cache=False``, a configuration) is the same in every call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pipelab.errors import ConfigurationError

__all__ = ["Call", "as_tuple", "one_or_all", "output_tensors", "repeated"]


class _Flowing:
    """Stands where a tensor of the inputs goes."""


@dataclass(frozen=True)
class Call:
    """The (positional, keyword) arguments of a model, with a mark in the place of each tensor of the inputs."""

    given: Any
    count: int

    @classmethod
    def of(cls, example_inputs: Any) -> tuple[Call, tuple[Tensor, ...]]:
        """(the call, the tensors that flow) of a tensor, a tuple of positional or a dict of keyword arguments.

        Raises ConfigurationError.
        """
        if isinstance(example_inputs, Mapping):
            given: tuple[Any, Any] = ((), dict(example_inputs))
        elif isinstance(example_inputs, tuple | list):
            given = (tuple(example_inputs), {})
        else:
            given = ((example_inputs,), {})
        tensors = tuple(leaf.detach() for leaf in pytree.tree_leaves(given) if isinstance(leaf, Tensor))
        if not tensors:
            raise ConfigurationError(
                f"example_inputs must hold a tensor, got {type(example_inputs).__name__}; pass what the model "
                "is called with: a tensor, a tuple of positional arguments, or a dict of keyword arguments"
            )
        sizes = {len(tensor) if tensor.dim() else None for tensor in tensors}
        if len(sizes) > 1 or None in sizes or 0 in sizes:
            shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors)
            raise ConfigurationError(
                f"the tensors of example_inputs must have the batch as their first dimension, all the same, got "
                f"{shapes}; what is the same for every sequence is made inside the model, or is no tensor"
            )
        return cls(pytree.tree_map_only(Tensor, lambda _: _Flowing(), given), len(tensors)), tensors

    def arguments(self, tensors: tuple[Tensor, ...]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """(positional, keyword) arguments with these tensors in their places. Raises ConfigurationError."""
        if len(tensors) != self.count:
            raise ConfigurationError(f"this model was split for {self.count} input tensors, got {len(tensors)}")
        rest = iter(tensors)
        args, kwargs = pytree.tree_map_only(_Flowing, lambda _: next(rest), self.given)
        return args, kwargs


def as_tuple(inputs: Any) -> tuple[Tensor, ...]:
    """A lone tensor or several, as a tuple."""
    return (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)


def one_or_all(tensors: tuple[Tensor, ...]) -> Any:
    """A single tensor stays lone."""
    return tensors[0] if len(tensors) == 1 else tensors


def repeated(tensors: tuple[Tensor, ...], size: int) -> tuple[Tensor, ...]:
    """A batch of ``size``, from the sequences of this one, over and over."""
    return tuple(tensor[torch.arange(size, device=tensor.device) % len(tensor)] for tensor in tensors)


def output_tensors(value: Any) -> Any:
    """What the loss gets of a model's answer: a tensor or a tuple of tensors passes through.

    Of a dict, such as a ModelOutput of Hugging Face, come its tensors in their order: what is None, and caches, are
    left out, and one tensor that is left comes alone. Raises ConfigurationError where there is none.
    """
    if isinstance(value, Tensor):
        return value
    if type(value) is tuple and value and all(isinstance(item, Tensor) for item in value):
        return value
    tensors = tuple(_tensors(value))
    if not tensors:
        raise ConfigurationError(f"the model returned no tensor, but a {type(value).__name__}")
    return one_or_all(tensors)


_CACHES = ("past_key_values", "mems", "cache")


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if key not in _CACHES:
                yield from _tensors(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
