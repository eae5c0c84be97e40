"""How long a step may take, and whether anything moves in it."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from contextlib import suppress
from pathlib import Path

from pipelab.errors import TimeLimitError

__all__ = ["Patience", "TimeLimit", "is_stopped", "stuck_error"]

_FIRST, _LEAST, _TIMES = 600.0, 60.0, 20
"""Seconds: a first step may compile, load, warm up. And how many times the longest so far."""


class TimeLimit:
    """Seconds, as told, or learnt from what was of the same ``kind``: the first of a kind has time to compile."""

    def __init__(self, told: float | None) -> None:
        self._told, self._longest = told, dict[Hashable, float]()
        self.kind: Hashable = None

    @property
    def seconds(self) -> float:
        """What the next of this kind may take."""
        if self._told is not None:
            return self._told
        longest = self._longest.get(self.kind)
        return _FIRST if longest is None else max(_LEAST, _TIMES * longest)

    @property
    def silence(self) -> float:
        """How long nothing need be heard of a process elsewhere: one that loads something may hold its interpreter."""
        return _FIRST if self._told is None else self._told

    def learn(self, seconds: float) -> None:
        """One has taken so long. What is beyond the limit was spent stopped, as by Ctrl-Z."""
        self._longest[self.kind] = max(self._longest.get(self.kind, 0.0), min(seconds, self.seconds))


def stuck_error(what: str, limit: float, devices: Sequence[int] = ()) -> TimeLimitError:
    """The error for ``what`` runs in a thread that has not ended within ``limit`` seconds, and cannot be ended."""
    error = TimeLimitError(
        f"{what} has not come to its end within {limit:g} s, and a thread cannot be ended from outside: this Pipeline "
        "cannot go on before it returns; a new one beside it can, with time_limit=..., in seconds, if it needs longer"
    )
    error.stuck = tuple(devices)
    return error


class Patience:
    """Waits for something to change, and counts only what it sees go by: a program may be stopped, and go on.

    It looks again and again, ``every`` so many seconds or sooner.
    """

    def __init__(self, limit: float, every: float) -> None:
        self._limit, self._most = limit, 2 * every
        self._still, self._at = 0.0, time.monotonic()
        self._seen: tuple[int, ...] = ()

    def is_over(self, now: Sequence[int]) -> bool:
        """Whether what is seen ``now`` has been the same for longer than the limit."""
        at, before = time.monotonic(), self._at
        self._at, seen, self._seen = at, self._seen, tuple(now)
        self._still = self._still + min(at - before, self._most) if seen == self._seen else 0.0
        return self._still > self._limit


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal, as far as this system says."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] in "Tt"
    return False
