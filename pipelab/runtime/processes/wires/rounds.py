"""What ranks of several hosts say to each other in rounds: over gloo, small things in one message."""

from __future__ import annotations

import ctypes
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipelab.runtime.processes.wires.lines import FOREVER, cut

__all__ = ["GlooRounds"]

_LENGTH = struct.Struct("=Q")
_SMALL = 2048
"""Bytes of a round. What does not fit takes a second one."""
_PING_ROUNDS = 8
_A_SECOND = timedelta(seconds=1)
_CUT_TAKES = 1.0
"""Seconds after which a round that was cut has ended, or never will."""


class GlooRounds:
    """Says what :class:`~.home.Home` says, among all ranks. Raises OSError if a rank is gone."""

    def __init__(self, store: Any, rank: int, size: int, patience: timedelta) -> None:
        self._rank, self._size = rank, size
        self._group: Any = dist.ProcessGroupGloo(store, rank, size, patience)
        self._talking = False
        """Whether a round has begun, and not come to its end."""
        self._work: Any = None

    def say(self, data: bytes, *, hears: bool = True, look: Callable[[], None] = lambda: None) -> list[bytes]:
        """Everyone's data, in the order of ranks. All call it alike; without ``hears`` only rank 0 gets them.

        Who hears calls ``look`` in each second of waiting; it may raise.
        """
        with self._round():
            return self._heard(data, look) if hears else self._collect(data)

    @contextmanager
    def _round(self) -> Iterator[None]:
        self._talking = True
        try:
            yield
        except RuntimeError as error:
            raise ConnectionError(str(error)) from None
        self._talking = False

    def _heard(self, data: bytes, look: Callable[[], None]) -> list[bytes]:
        room = _SMALL - _LENGTH.size
        found = self._gather((_LENGTH.pack(len(data)) + data)[:_SMALL], _SMALL, look)
        sizes = [_LENGTH.unpack_from(one)[0] for one in found]
        said = [one[_LENGTH.size :] for one in found]
        if max(sizes) > room:
            more = self._gather(data[room:], max(sizes) - room, look)
            said = [one + other for one, other in zip(said, more, strict=True)]
        return [one[:size] for one, size in zip(said, sizes, strict=True)]

    def close(self) -> None:
        """Hang up."""
        if self._group is not None and self._talking:
            cut(self._group, int(self._rank == 0))
            let_go(self._group, self._work)
        self._group = self._work = None

    def measure_clocks(self, leaders: Sequence[int]) -> dict[int, tuple[float, float]]:
        """At rank 0: seconds to add to each leader's clock to read rank 0's, and half of the shortest round trip."""
        found = {}
        with self._round():
            for leader in leaders:
                if self._rank == 0:
                    found[leader] = min((self._ping(leader) for _ in range(_PING_ROUNDS)), key=lambda pair: pair[1])
                elif self._rank == leader:
                    for _ in range(_PING_ROUNDS):
                        self._pong()
        return found

    def _ping(self, leader: int) -> tuple[float, float]:
        theirs = torch.zeros(1, dtype=torch.float64, device="cpu")
        sent = time.perf_counter()
        self._send(theirs, leader)
        self._receive(theirs, leader)
        back = time.perf_counter()
        return (sent + back) / 2 - float(theirs), (back - sent) / 2

    def _pong(self) -> None:
        token = torch.zeros(1, dtype=torch.float64, device="cpu")
        self._receive(token, 0)
        self._send(token.fill_(time.perf_counter()), 0)

    def _gather(self, data: bytes, size: int, look: Callable[[], None]) -> list[bytes]:
        mine = torch.frombuffer(bytearray(data.ljust(size, b"\0")), dtype=torch.uint8)
        found = [torch.empty_like(mine) for _ in range(self._size)]
        options = dist.distributed_c10d.AllgatherOptions()
        options.timeout = FOREVER  # others may be computing
        self._work = work = self._group.allgather([found], [mine], options)
        while True:
            try:
                work.wait(_A_SECOND)
                break
            except RuntimeError:
                if work.is_completed():
                    raise
            look()
        return [one.numpy().tobytes() for one in found]

    def _collect(self, data: bytes) -> list[bytes]:
        if self._rank != 0:
            self._send(torch.tensor([len(data)], device="cpu"), 0)
            if data:
                self._send(torch.frombuffer(bytearray(data), dtype=torch.uint8), 0)
            return [b""] * self._size
        found = [data]
        for r in range(1, self._size):
            size = torch.zeros(1, dtype=torch.int64, device="cpu")
            self._receive(size, r)
            room = torch.empty(int(size), dtype=torch.uint8, device="cpu")
            if int(size):
                self._receive(room, r)
            found.append(room.numpy().tobytes())
        return found

    def _send(self, tensor: Tensor, peer: int) -> None:
        self._group.send([tensor], peer, 0).wait(FOREVER)

    def _receive(self, tensor: Tensor, peer: int) -> None:
        self._group.recv([tensor], peer, 0).wait(FOREVER)


def let_go(group: Any, work: Any) -> None:
    """Before the last reference to a gloo group that was cut goes: wait until its ``work`` has ended.

    Where gloo began to send just after its connections were closed, it waits forever, and whoever lets go of the group
    waits for it. Such a group stays as it is, until the process ends.
    """
    late = time.monotonic() + _CUT_TAKES
    while work is not None and not work.is_completed():
        if time.monotonic() > late:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))
            return
        time.sleep(0.01)
