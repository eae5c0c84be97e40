"""Where each device is, written down where it can be read even if its process is stopped, stuck or gone.

Processes of one host share a page of memory, a number for each device. Those of other hosts are told through the
store, by whoever has been waiting for a while.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from pipelab.errors import TimeLimitError
from pipelab.runtime.device.program import ProgramTable
from pipelab.runtime.faults.deadlock import in_action
from pipelab.runtime.faults.limit import Patience, is_stopped
from pipelab.runtime.faults.where import OUTSIDE, SAVING, described
from pipelab.runtime.processes.block import nameless_file

__all__ = ["Board", "Far"]

_EVERY = 0.5
_WORD = 8


class Board:
    """The whereabouts of ``size`` devices, in ``file``, or in a new one."""

    def __init__(self, size: int, file: int | None = None) -> None:
        self.size = size
        self._own: int | None = None
        self.file = nameless_file(2 * size * _WORD) if file is None else file
        words = memoryview(mmap.mmap(self.file, 2 * size * _WORD)).cast("q")
        self.whereabouts: Any = words[:size]
        self.pids: Any = words[size:]
        """Of those who have said so; 0 of the others."""
        if file is None:
            for device in range(size):
                self.whereabouts[device] = OUTSIDE

    def claim(self, device: int) -> None:
        """This process drives ``device``. The system notices when it ends, however that happens."""
        fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, device)
        self.pids[device], self._own = os.getpid(), device

    def gone(self, but: int) -> list[int]:
        """The devices, ``but`` for one's own, whose process has ended without a word; waits a moment for one."""
        for _ in range(20 if self.file >= 0 else 0):
            others = [device for device in range(self.size) if device != but and self.pids[device]]
            if found := [device for device in others if self._ended(device)]:
                return found
            time.sleep(0.01)
        return []

    def _ended(self, device: int) -> bool:
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, device)
        except OSError:
            return False
        fcntl.lockf(self.file, fcntl.LOCK_UN, 1, device)
        return True

    def patience(self, own: int, limit: float, table: ProgramTable | None) -> Callable[[], None]:
        """What is called in each second of a wait for the others.

        It raises TimeLimitError once no one has moved for ``limit`` seconds, unless someone is saving, or outside.
        ``table`` is what they walk.
        """
        patience = Patience(limit + 1.0, 1.0)

        def look() -> None:
            now = list(self.whereabouts)
            if not patience.is_over(now):
                return
            others = [device for device in range(self.size) if device != own]
            stopped = [device for device in others if is_stopped(self.pids[device])]
            if stopped or not {OUTSIDE, SAVING}.intersection(now):
                named = stopped or [device for device in others if in_action(now[device])] or others
                told = ", ".join(f"device {device} is {described(table, device, now[device])}" for device in named)
                told += "; its process is stopped" if stopped else ""
                error = TimeLimitError(f"the processes of this pipeline have not moved for {limit:g} s: {told}")
                error.stuck = tuple(named)
                raise error

        return look

    def close(self) -> None:
        """Let go of the file, and take leave; whoever reads may read on."""
        if self.file >= 0:
            if self._own is not None:
                self.pids[self._own] = 0
            os.close(self.file)
        self.file = -1

    def __del__(self) -> None:
        self.close()


class Far:
    """What ranks of several hosts tell each other of walk number ``walk``: only while they wait, twice a second."""

    def __init__(self, store: Any, rank: int) -> None:
        self.walk = 0
        self.ranks: tuple[int, ...] = ()
        """Those of other hosts."""
        self._store, self._rank = store, rank
        self._last, self._next = OUTSIDE, 0.0
        self._heard: dict[int, tuple[int, ...]] = {}
        store.set(str(rank), f"0 {OUTSIDE}")

    def look(self, whereabouts: Sequence[int]) -> list[int]:
        """``whereabouts``, with what is known of those of other hosts in this walk filled in."""
        now, own, found = time.monotonic(), whereabouts[self._rank], list(whereabouts)
        if now >= self._next:
            self._next = now + _EVERY
            if own == self._last:
                self._store.set(str(self._rank), f"{self.walk} {own}")
            self._last = own
            told = self._store.multi_get([str(r) for r in self.ranks])
            self._heard = {r: tuple(map(int, one.split())) for r, one in zip(self.ranks, told, strict=True)}
        for r in self.ranks:
            walk, place = self._heard.get(r, (0, OUTSIDE))
            found[r] = place if walk == self.walk else OUTSIDE
        return found
