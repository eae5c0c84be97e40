"""Connections between neighbours: a line per (activation | gradient, source, destination).

Between processes of one host whose tensors are on the CPU it is a :class:`~.local.LocalLine`, else a group of two. NCCL
matches messages in order per communicator, and a send blocks its stream until it is received. With a communicator per
channel, messages of one kind and direction wait for nothing but each other. All ranks make the groups in sorted order,
so that no two wait for each other, and send one byte over each before the first step.

If a device fails, its process drops its lines. That closes their sockets and ends the waits of the processes at the
other ends, which drop theirs: no one is left waiting. An NCCL kernel does not notice; there a rank that fails says so
in the store, where each rank looks twice a second.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipelab.errors import PipelabError
from pipelab.runtime.processes.wires.home import Home
from pipelab.runtime.processes.wires.local import LocalLine
from pipelab.runtime.processes.wires.ticker import Ticker
from pipelab.schedules.wire import Channel

__all__ = ["FOREVER", "GroupLine", "Lines", "as_bytes", "cut"]

FOREVER = timedelta(days=1)
"""How long a device waits for a message: another may be computing, or held in a debugger."""

WATCHED = ("nccl",)
"""Backends whose waits do not end by themselves when the other end is gone."""
_FAILED = "failed"
_CUT = 1 << 16
"""A tag that no message has."""
NCCL_PATIENCE = timedelta(minutes=30)
"""NCCL's watchdog counts from when a receive was posted, not from when its message was sent."""


def cut(group: Any, peer: int) -> None:
    """End all waits in a gloo group, at ``peer`` too: when one ends before its time, gloo closes the connections."""
    with suppress(RuntimeError):
        group.recv([torch.empty(1, dtype=torch.uint8, device="cpu")], peer, _CUT).wait(timedelta(milliseconds=1))


class GroupLine:
    """One channel seen from one of its ends: a group of two, source and destination in order of their ranks."""

    def __init__(self, group: Any, channel: Channel, rank: int, place: torch.device) -> None:
        self.group, self.place = group, place
        self.peer = channel.destination if rank == channel.source else channel.source
        self._other = int(self.peer > rank)
        self._sent: deque[tuple[list[Any], list[Tensor]]] = deque()
        self._waiting: queue.SimpleQueue[Any] | None = None
        self._waiter: threading.Thread | None = None

    def send(self, tensors: list[Tensor]) -> None:
        """Start sending; the tensors are kept until it is done."""
        works = [self.group.send([tensor], self._other, 0) for tensor in tensors]
        if self.place.type == "cuda":  # done is what the stream says
            self.sweep()
            self._sent.append((works, tensors))
            return
        if self._waiting is None:  # gloo only says that a send is done to someone who waits for it
            self._waiting = queue.SimpleQueue()
            self._waiter = threading.Thread(target=_wait_for_sends, args=(self._waiting,), daemon=True)
            self._waiter.start()
        self._waiting.put((works, tensors))

    def sweep(self) -> None:
        """Let go of what has been sent."""
        while self._sent and all(work.is_completed() for work in self._sent[0][0]):
            self._sent.popleft()

    def post(self, tensors: list[Tensor]) -> list[Any]:
        """Start receiving into ``tensors``; returns what to wait for."""
        return [self.group.recv([tensor], self._other, 0) for tensor in tensors]

    def wait(self, works: list[Any]) -> None:
        """Until they are done; on a GPU its stream waits, not the host."""
        for work in works:
            if self.place.type == "cuda":
                work.wait()
            else:
                work.wait(FOREVER)

    def hand(self, tensor: Tensor) -> None:
        """Send a copy of a tensor that the other end expects."""
        self.send([as_bytes(tensor, self.place)])

    def expect(self, tensor: Tensor) -> Callable[[], Tensor]:
        """Start receiving a tensor like this one; returns what waits for it."""
        room = torch.empty(tensor.shape, dtype=tensor.dtype, device=self.place)
        works = self.post([room.view(-1).view(torch.uint8)])

        def arrived() -> Tensor:
            self.wait(works)
            return room

        return arrived

    def hang_up(self, *, at_once: bool = True) -> None:
        """Drop the group; ``at_once`` ends waits too, and what is still on its way is lost."""
        if self._waiting is not None:
            self._waiting.put(None)
        if self.group is not None and self.place.type == "cuda":
            self.group.abort()
        elif self.group is not None and at_once:
            cut(self.group, self._other)
        self.group, self._sent = None, deque()

    def settle(self, seconds: float) -> None:
        """After hanging up: wait for the thread that waits for sends; one in gloo must not meet Python's end."""
        if self._waiter is not None:
            self._waiter.join(seconds)


def _wait_for_sends(waiting: queue.SimpleQueue[Any]) -> None:
    while (item := waiting.get()) is not None:
        try:
            for work in item[0]:
                work.wait(FOREVER)
        except RuntimeError:  # the line was cut; the worker finds out by itself
            pass
        item = work = None  # or the last message would be kept


class Lines:
    """All of one rank's lines. ``cut`` once a step has failed: then they are made anew, as the next generation.

    ``home`` are the ranks that local lines lead to. ``meta`` is a gloo group of all ranks, which carries the shapes of
    what goes through groups of two.
    """

    def __init__(
        self,
        store: Any,
        rank: int,
        size: int,
        backend: str,
        place: torch.device,
        home: Home,
        generation: int,
        timeout: timedelta,
    ) -> None:
        self.rank, self.generation, self.cut = rank, generation, False
        self._store, self._size, self._backend, self._timeout = store, size, backend, timeout
        self._home = home
        self.place = place if backend == "nccl" else torch.device("cpu")
        """Where tensors are sent from and received into."""
        self.meta: Any = None
        self.shapes: dict[Any, Any] = {}
        self._known: set[Channel] = set()
        self._lines: dict[Channel, GroupLine | LocalLine] = {}
        self._changing = threading.Lock()
        self._watcher: Ticker | None = None
        self._gone: list[GroupLine | LocalLine] = []

    def __getitem__(self, channel: Channel) -> GroupLine | LocalLine:
        return self._lines[channel]

    def sweep(self) -> None:
        """Let go of what has been sent."""
        for line in list(self._lines.values()):  # another thread may hang up meanwhile
            line.sweep()

    def knows(self, channels: Iterable[Channel]) -> bool:
        """Whether all of ``channels``, of all ranks, are connected."""
        return self._known.issuperset(channels)

    def connect(self, channels: Iterable[Channel]) -> None:
        """Connect this rank's ends of new channels; all ranks do so alike."""
        new = sorted(set(channels) - self._known)
        self._known.update(new)
        home = () if self._backend == "nccl" else self._home.ranks
        near = [c for c in new if c.source in home and c.destination in home]
        far = [c for c in new if c not in near]
        try:
            self._lines |= {channel: LocalLine(end) for channel, end in self._home.connect(near).items()}
            if self.meta is None and len(home) < self._size:  # all ranks make it, whoever's lines are new
                store = dist.PrefixStore("meta", self._store)
                self.meta = dist.ProcessGroupGloo(store, self.rank, self._size, self._timeout)
                if self._backend in WATCHED:
                    self._watcher = Ticker(0.5, self._watch, "lines")
            for channel in far:
                if self.rank in (channel.source, channel.destination):
                    self._lines[channel] = self._warmed_up(channel)
        except (OSError, RuntimeError) as error:
            raise PipelabError(
                f"rank {self.rank} cannot connect to its neighbours: {str(error).splitlines()[0]}"
            ) from error

    def hang_up(self, *, at_once: bool = True) -> None:
        """Drop all lines, which ends the waits at the other ends, and ``at_once`` those here."""
        with self._changing:
            self.cut = True
            self._gone += self._lines.values()
            for line in self._lines.values():
                line.hang_up(at_once=at_once)
            self._lines.clear()
            if self.meta is not None and at_once:
                cut(self.meta, int(self.rank == 0))
            self.meta = None

    def fail(self) -> None:
        """A device of this rank has failed: hang up, and let the others know."""
        if self._watcher is not None and not self.cut:
            with suppress(RuntimeError):  # the store may be gone, too
                self._store.set(_FAILED, b"")
        self.hang_up()

    def _watch(self) -> bool:
        with suppress(RuntimeError):  # the store is gone
            if not self._store.check([_FAILED]):
                return self.cut
        self.hang_up()
        return True

    def settle(self) -> None:
        """After hanging up for good: wait, shortly, until no thread of this rank is in a group any more."""
        if self._watcher is not None:
            self._watcher.stop()
        for line in self._gone:
            line.settle(1.0)
        self._gone.clear()

    def _warmed_up(self, channel: Channel) -> GroupLine:
        store = dist.PrefixStore(f"{channel.kind}-{channel.source}-{channel.destination}", self._store)
        number = int(self.rank == max(channel.source, channel.destination))
        if self._backend == "nccl":
            options = dist.ProcessGroupNCCL.Options()
            options._timeout = NCCL_PATIENCE
            group: Any = dist.ProcessGroupNCCL(store, number, 2, options)
        else:
            group = dist.ProcessGroupGloo(store, number, 2, self._timeout)
        line = GroupLine(group, channel, self.rank, self.place)
        token = [torch.zeros(1, dtype=torch.uint8, device=self.place)]
        if self.rank == channel.source:
            line.send(token)
        else:
            for work in line.post(token):
                work.wait(self._timeout)
        return line


def as_bytes(tensor: Tensor, place: torch.device) -> Tensor:
    """A contiguous copy, seen as bytes: backends need not know its dtype."""
    copied = torch.empty(tensor.shape, dtype=tensor.dtype, device=place)
    copied.copy_(tensor.detach())
    return copied.view(-1).view(torch.uint8)
