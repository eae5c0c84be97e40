"""What is no tensor, as JSON: what it was when it is read again, and nothing that would have to be run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelab.errors import ConfigurationError

__all__ = ["Keys", "from_plain", "nested", "to_plain"]

Keys = tuple[str, ...]
_TENSOR, _TUPLE, _PAIRS, _COUNTER = "$tensor", "$tuple", "$pairs", "$counter"


def to_plain(value: Any, path: Keys, tensors: dict[Keys, Tensor]) -> Any:
    """``value`` with lists, dicts, numbers and text only; its tensors go into ``tensors``, under ``path``.

    Raises ConfigurationError that names what cannot be written down.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return to_plain(value.item(), path, tensors)
    if isinstance(value, Tensor) and value.layout == torch.strided:
        if path[0] == "data":  # whose keys may look alike as text
            path = ("data", str(len(tensors)))
        tensors[path] = value.detach()
        return {_TENSOR: ".".join(path)}
    if isinstance(value, list | tuple):
        inner = [to_plain(entry, (*path, str(k)), tensors) for k, entry in enumerate(value)]
        return inner if isinstance(value, list) else {_TUPLE: inner}
    if isinstance(value, Mapping):
        told = {key: to_plain(entry, (*path, str(key)), tensors) for key, entry in value.items()}
        if isinstance(value, Counter):
            return {_COUNTER: [[_key(key, path), count] for key, count in told.items()]}
        if all(isinstance(key, str) and not key.startswith("$") for key in told):
            return told
        return {_PAIRS: [[_key(key, path), entry] for key, entry in told.items()]}
    kind = f"{value.layout} tensor" if isinstance(value, Tensor) else type(value).__name__
    raise ConfigurationError(
        f"{'.'.join(path)} is a {kind}, which a checkpoint does not hold: numbers, text, None, dense tensors, and "
        "lists, tuples and dicts of them it does"
    )


def _key(key: Any, path: Keys) -> Any:
    tensors: dict[Keys, Tensor] = {}
    plain = to_plain(key, path, tensors)
    if tensors:
        raise ConfigurationError(f"{'.'.join(path)} has a tensor for a key, which a checkpoint does not hold")
    return plain


def from_plain(value: Any, tensor: Callable[[str], Any]) -> Any:
    """What :func:`to_plain` was given; ``tensor`` finds each by its name."""
    if isinstance(value, list):
        return [from_plain(entry, tensor) for entry in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (kind, told), *_ = value.items()
        if kind == _TENSOR:
            return tensor(told)
        if kind == _TUPLE:
            return tuple(from_plain(told, tensor))
        if kind in (_PAIRS, _COUNTER):
            pairs = {from_plain(key, tensor): from_plain(entry, tensor) for key, entry in told}
            return pairs if kind == _PAIRS else Counter(pairs)
    return {key: from_plain(entry, tensor) for key, entry in value.items()}


def nested(tensors: Mapping[Keys, Tensor]) -> dict[str, Any]:
    """Dicts in dicts, which torch.distributed.checkpoint flattens to the names that :func:`to_plain` gives."""
    found: dict[str, Any] = {}
    for path, tensor in tensors.items():
        inner = found
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = tensor
    return found
