"""Taking Python objects to another process: what a notebook's cell defined travels by value (cloudpickle).

What cannot travel is named: the attribute of the model, the closure of the function.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cloudpickle
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

from pipelab.errors import ConfigurationError

__all__ = ["identity", "pack", "unpack"]

_DEPTH = 12
_identities = WeakTensorKeyDictionary()


def pack(value: Any, name: str, stand_in: Callable[[Any], Any] | None = None) -> bytes:
    """``value`` as bytes. ``stand_in(obj)`` returns what is put in place of an object, or None to pack it as it is.

    Raises ConfigurationError that names the attribute which cannot be packed; ``name`` is what the caller calls it.
    """
    try:
        return _dump(value, stand_in)
    except Exception as error:
        path, culprit, reason = _find(value, name, error, stand_in)
        raise ConfigurationError(
            f"{path} cannot be sent to another process: it is a {type(culprit).__name__} ({reason}); leave it out, "
            "make it where it is used, or use launch='threads', which sends nothing"
        ) from error


def unpack(data: bytes, restore: Callable[[Any], Any] | None = None) -> Any:
    """What :func:`pack` packed; ``restore`` gets what ``stand_in`` returned."""
    unpickler = _Unpickler(io.BytesIO(data))
    unpickler.restore = restore
    return unpickler.load()


class _Pickler(cloudpickle.Pickler):
    stand_in: Callable[[Any], Any] | None = None

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._numbers: dict[int, int] = {}

    def reducer_override(self, obj: Any) -> Any:
        """A parameter arrives with a number, the same in every process: see :func:`identity`."""
        if isinstance(obj, nn.Parameter):
            number = self._numbers.setdefault(id(obj), len(self._numbers))
            return _numbered, (number, *obj.__reduce_ex__(pickle.HIGHEST_PROTOCOL)[:2])
        return super().reducer_override(obj)

    def persistent_id(self, obj: Any) -> Any:
        return None if self.stand_in is None else self.stand_in(obj)


def _numbered(number: int, make: Callable[..., nn.Parameter], given: tuple[Any, ...]) -> nn.Parameter:
    parameter = make(*given)
    _identities[parameter] = number
    return parameter


def identity(parameter: nn.Parameter) -> int | None:
    """Which of the caller's parameters this was, if it came with a function: the same number in each process."""
    number: int | None = _identities.get(parameter)
    return number


class _Unpickler(pickle.Unpickler):
    restore: Callable[[Any], Any] | None = None

    def persistent_load(self, pid: Any) -> Any:
        assert self.restore is not None
        return self.restore(pid)


def _dump(value: Any, stand_in: Callable[[Any], Any] | None) -> bytes:
    with io.BytesIO() as file:
        pickler = _Pickler(file)
        pickler.stand_in = stand_in
        pickler.dump(value)
        return file.getvalue()


def _find(value: Any, name: str, error: Exception, stand_in: Callable[[Any], Any] | None) -> tuple[str, Any, str]:
    """(path, object, reason) of the innermost part that cannot be packed."""
    for _ in range(_DEPTH):
        for path, part in _parts(value, name):
            try:
                _dump(part, stand_in)
            except Exception as inner:  # noqa: BLE001 (pickling runs foreign code)
                value, name, error = part, path, inner
                break
        else:
            break
    return name, value, str(error).splitlines()[0] if str(error) else type(error).__name__


def _parts(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The parts of an object that a reader could name."""
    if isinstance(value, nn.Module):
        yield from ((f"{name}.{key}", child) for key, child in value._modules.items() if child is not None)
        own = {k: v for k, v in vars(value).items() if k not in ("_modules", "_parameters", "_buffers")}
        yield from ((f"{name}.{key}", part) for key, part in own.items())
    elif isinstance(value, Mapping):
        yield from ((f"{name}[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set):
        yield from ((f"{name}[{number}]", part) for number, part in enumerate(value))
    elif hasattr(value, "__closure__"):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        yield from ((f"{name} (its variable {key})", cell.cell_contents) for key, cell in cells)
        used = {key: value.__globals__[key] for key in value.__code__.co_names if key in value.__globals__}
        yield from ((f"{name} (its variable {key})", part) for key, part in used.items() if not _imported(part))
    elif hasattr(value, "__dict__") and not isinstance(value, type):
        yield from ((f"{name}.{key}", part) for key, part in vars(value).items())


def _imported(value: Any) -> bool:
    return type(value).__name__ in ("module", "builtin_function_or_method")
