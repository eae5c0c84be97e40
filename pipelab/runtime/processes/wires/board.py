"""Where each device is, written down where it can be read even if its process is stopped, stuck or gone.

Processes of one host share a page of memory, a number for each device. Those of other hosts are told through the
store, twice a second, which also says that the process is still there.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pipelab.errors import TimeLimitError
from pipelab.runtime.device.program import ProgramTable
from pipelab.runtime.faults.deadlock import in_action
from pipelab.runtime.faults.limit import Patience, TimeLimit, is_stopped
from pipelab.runtime.faults.where import OUTSIDE, SAVING, described
from pipelab.runtime.processes.block import nameless_file
from pipelab.runtime.processes.wires.ticker import Ticker

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

    def patience(self, own: int, limit: TimeLimit, table: ProgramTable | None, far: Far) -> Callable[[], None]:
        """What is called in each second of a wait for the others.

        It raises TimeLimitError once no one has moved for ``limit``, unless someone is saving, or outside; or once
        nothing was heard of one of another host. ``table`` is what they walk.
        """
        seconds = limit.seconds
        patience, hearing = Patience(seconds + 1.0, 1.0), dict[int, Patience]()

        def look() -> None:
            now, others = far.look(self.whereabouts), [device for device in range(self.size) if device != own]
            silent = []
            for device, beat in far.beats.items():
                if hearing.setdefault(device, Patience(limit.silence + 1.0, 1.0)).is_over((beat,)):
                    silent.append(device)
            still = patience.is_over(now)
            stopped = [device for device in others if is_stopped(self.pids[device])] if still else []
            if silent or stopped or (still and not {OUTSIDE, SAVING}.intersection(now)):
                named = silent or stopped or [device for device in others if in_action(now[device])] or others
                told = ", ".join(f"device {device} is {described(table, device, now[device])}" for device in named)
                head = f"the processes of this pipeline have not moved for {seconds:g} s: {told}"
                if silent:
                    head = f"nothing has been heard from another host for {limit.silence:g} s; as last heard, {told}"
                elif stopped:
                    head += "; its process is stopped"
                error = TimeLimitError(head)
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
    """What ranks of several hosts tell each other of walk number ``walk``: twice a second, by a thread."""

    def __init__(self, store: Any, rank: int) -> None:
        self.walk = 0
        self.ranks: tuple[int, ...] = ()
        """Those of other hosts."""
        self.beats: dict[int, int] = {}
        """How often each of them had spoken when it was looked at last."""
        self._store, self._rank = store, rank
        self._told, self._next = 0, 0.0
        self._heard: dict[int, tuple[int, ...]] = {}
        self._teller: Ticker | None = None
        store.set(str(rank), f"0 0 {OUTSIDE}")

    def begin(self, ranks: Sequence[int], whereabouts: Sequence[int]) -> None:
        """From now on tell ``ranks``, if there are any, where this one is."""
        self.ranks = tuple(ranks)
        if ranks:
            self._teller = Ticker(_EVERY, partial(self.tell, whereabouts), "whereabouts")

    def tell(self, whereabouts: Sequence[int]) -> bool:
        """Say where this rank is, and that it is still there. Returns whether the store is gone."""
        walk, own = self.walk, whereabouts[self._rank]
        if walk != self.walk:  # it may have been either's
            return False
        self._told += 1
        try:
            self._store.set(str(self._rank), f"{self._told} {walk} {own}")
        except RuntimeError:  # whoever looks finds out
            return True
        return False

    def look(self, whereabouts: Sequence[int]) -> list[int]:
        """``whereabouts``, with what is known of those of other hosts in this walk filled in."""
        found = list(whereabouts)
        if not self.ranks:
            return found
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _EVERY
            told = self._store.multi_get([str(r) for r in self.ranks])
            self._heard = {r: tuple(map(int, one.split())) for r, one in zip(self.ranks, told, strict=True)}
            self.beats = {r: beat for r, (beat, _, _) in self._heard.items()}
        for r in self.ranks:
            _, walk, place = self._heard.get(r, (0, 0, OUTSIDE))
            found[r] = place if walk == self.walk else OUTSIDE
        return found

    def close(self) -> None:
        """Say nothing any more."""
        if self._teller is not None:
            self._teller.stop()
