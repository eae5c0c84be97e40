"""An optimizer as it was before a step: what makes the step undone, bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.errors import ConfigurationError

__all__ = ["as_now", "require_copies"]


Own = dict[int, Any]
"""Parameters by their id: whatever holds them, they stay the same objects."""


def as_now(value: Any, own: Own | None = None) -> Callable[[], Any]:
    """What gives ``value`` back as it is now: the same object, with what is in it now.

    For an optimizer that is its parameters, their gradients and all that it remembers: it holds a copy of these.
    What can be called, such as a hook, is not copied. ``own``: see there.
    """
    own = {} if own is None else own
    if isinstance(value, Tensor):
        return _tensor(value)
    if isinstance(value, torch.optim.Optimizer):
        own = own | {id(one): one for group in value.param_groups for one in group["params"]}
    if isinstance(value, torch.optim.Optimizer | nn.Module):
        inside = _mapping(vars(value), own)
        return lambda: (inside(), value)[1]
    if isinstance(value, dict):
        return _mapping(value, own)
    if type(value) in (list, tuple):
        return _sequence(value, own)
    copied = value if callable(value) else copy.deepcopy(value, dict(own))
    return lambda: copied


def _tensor(value: Tensor) -> Callable[[], Tensor]:
    with torch.no_grad():
        home, copied = value.data, value.detach().clone()
    grad = as_now(value.grad)

    def back() -> Tensor:
        with torch.no_grad():
            home.copy_(copied)
        value.data, value.grad = home, grad()
        return value

    return back


def _mapping(value: dict[Any, Any], own: Own) -> Callable[[], dict[Any, Any]]:
    entries = {key: as_now(one, own) for key, one in value.items()}

    def back() -> dict[Any, Any]:
        found = {key: one() for key, one in entries.items()}
        value.clear()
        value.update(found)
        return value

    return back


def _sequence(value: Any, own: Own) -> Callable[[], Any]:
    items = [as_now(one, own) for one in value]

    def back() -> Any:
        found = [one() for one in items]
        if isinstance(value, tuple):
            return tuple(found)
        value[:] = found
        return value

    return back


def require_copies(optimizer: torch.optim.Optimizer) -> None:
    """Raise ConfigurationError if an optimizer cannot be copied."""
    try:
        as_now(optimizer)
    except Exception as error:
        raise ConfigurationError(
            f"post_validation keeps a copy of each optimizer until its step is validated, and this "
            f"{type(optimizer).__name__} cannot be copied ({type(error).__name__}: {error}); take one of "
            "torch.optim's, or leave post_validation out"
        ) from error
