"""What a learner's function returned, as plain data: it can be written as JSON, and nothing of it runs again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, KeysView, Mapping, ValuesView
from fractions import Fraction
from typing import Any

from pipelab.schedules import Action, Schedule, TimeTable

__all__ = ["LARGEST", "plain"]

LARGEST = 200_000  # entries of one answer; a table of 16 devices and 64 micro-batches has 2,048


def plain(value: Any) -> Any:
    """``value`` as None, bool, int, float, str, list or dict.

    A set becomes ``{"set": [...]}``, a tensor or array ``{"tensor": nested lists}``, a schedule ``{"csv": text}``, an
    Action its text, and what is none of these ``{"other": type, "shown": repr}``. Generators are run. Tuples are lists.
    Raises ValueError for more than ``LARGEST`` entries.
    """
    return _Plainer().of(value)


class _Plainer:
    def __init__(self) -> None:
        self.left = LARGEST

    def of(self, value: Any, depth: int = 0) -> Any:
        self.left -= 1
        if self.left < 0 or depth > 12:
            raise ValueError("it is too large to be an answer")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            if int.bit_length(value) > 4096:
                raise ValueError("it contains a number of more than a thousand digits")
            return int.__add__(value, 0)  # of a subclass the number, whatever it claims to be
        if isinstance(value, float):
            return float.__add__(value, 0.0)
        if isinstance(value, str):
            return str.__str__(value).encode("utf-8", "replace").decode()
        if isinstance(value, Mapping):
            return {str(key): self.of(item, depth + 1) for key, item in value.items()}
        if isinstance(value, set | frozenset):
            return {"set": sorted((self.of(item, depth + 1) for item in value), key=repr)}
        if isinstance(value, list | tuple | range | deque | KeysView | ValuesView | Iterator):
            return [self.of(item, depth + 1) for item in value]
        return self._special(value, depth)

    def _special(self, value: Any, depth: int) -> Any:
        if isinstance(value, Action):
            return str(value)
        if isinstance(value, Schedule):
            return {"csv": value.to_csv()}
        if isinstance(value, TimeTable):
            return [self.of(row, depth + 1) for row in value.rows]
        if isinstance(value, Fraction):
            return float(value)
        if type(value).__module__.partition(".")[0] in ("torch", "numpy") and hasattr(value, "tolist"):
            return self._tensor(value, depth)
        return {"other": type(value).__name__, "shown": _shown(value)}

    def _tensor(self, value: Any, depth: int) -> Any:
        size = value.numel() if hasattr(value, "numel") else value.size
        if size > self.left:
            raise ValueError("it is too large to be an answer")
        listed = (value.detach().cpu() if hasattr(value, "detach") else value).tolist()
        return {"tensor": self.of(listed, depth + 1)} if isinstance(listed, list) else self.of(listed, depth + 1)


def _shown(value: Any) -> str:
    try:
        return repr(value)[:200]
    except Exception:  # noqa: BLE001 - a learner's __repr__ may do anything
        return ""
