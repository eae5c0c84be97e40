"""What the processes of one pipeline do together. A pipeline in one process has no one to ask: ``Alone``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from pipelab.runtime.device.channels import StepWire, Wire
from pipelab.runtime.device.program import ProgramTable
from pipelab.runtime.faults.limit import TimeLimit
from pipelab.schedules.wire import Channel, Route

__all__ = ["Alone", "Move", "Numbers", "Peers", "Share", "note"]

T = TypeVar("T")
Numbers = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Move:
    """A tensor on its way between two devices: sent at the source, filled in at the destination."""

    source: int
    destination: int
    tensor: Tensor


@dataclass(frozen=True)
class Share:
    """One replica's part of a batch: the sequences before it, and the loss terms of the whole batch."""

    first: int = 0
    terms: float = 0.0


class Peers(Protocol):
    """The processes of one pipeline. All of them call the same methods in the same order."""

    own: tuple[int, ...]
    """The devices that this process drives."""
    asynchronous: bool
    """Whether the host runs ahead of its messages (NCCL): then only the device's own times say what came first."""

    backend: str
    """What carries messages: "memory", "gloo" or "nccl"."""

    whereabouts: MutableSequence[int]
    """Where each device is in its program (see ``device.program.SLOT``), or in what else, as far as this process sees;
    of its own it says so here."""

    table: ProgramTable | None
    """What they are walking, or walked last."""

    limit: TimeLimit
    """How long a step may take."""

    def look(self) -> Sequence[int]:
        """The whereabouts of all devices, for one who has been waiting for a while."""
        ...

    def exchange(self, value: T) -> list[T]:
        """Everyone's value, one entry a process, in the order of devices."""
        ...

    def agree(self, work: Callable[[], T]) -> list[T]:
        """Do ``work`` and exchange what came out. If it raises anywhere, it raises everywhere."""
        ...

    def agree_own(self, work: Callable[[], T]) -> T:
        """Do ``work``, which may come to what cannot travel. If it raises anywhere, it raises everywhere."""
        ...

    def agree_numbers(self, work: Callable[[], Numbers]) -> np.ndarray:
        """Do ``work`` and exchange the numbers that came out: float64, [process, number], as many from each.

        If it raises anywhere, it raises everywhere.
        """
        ...

    def gather(self, value: T) -> list[T] | None:
        """Everyone's value in process 0; None in the others. For what is large."""
        ...

    def hand_over(self, moves: Sequence[Move], routes: Sequence[tuple[int, int]]) -> None:
        """Make ``moves``, those that this process has an end of; ``routes`` are all (source, destination) of them.

        Between two devices they are made in the order given.
        """
        ...

    def open_wire(
        self,
        messages: Mapping[Channel, Sequence[Route]],
        places: Sequence[torch.device],
        sizes: Sequence[int],
        *,
        signature: Any = None,
        **link: Any,
    ) -> StepWire:
        """A wire for one step and its messages; ``sizes`` are those of the micro-batches.

        ``signature`` is what shapes may depend on besides; ``link`` is what ``Wire`` is told of it.
        Raises PipelabError if a connection cannot be made.
        """
        ...

    def clock_offsets(self) -> tuple[list[float], float]:
        """Seconds to add to each process's clock to read process 0's, and how far off that may be."""
        ...

    def turn(self, place: torch.device, places: Sequence[torch.device]) -> Any:
        """The lock by which devices that share a processor take turns under the device clock; None where none do."""
        ...

    def abandon(self, error: BaseException) -> bool:
        """If the others have not heard of ``error``, end their waits, and the group; whether that was so."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def note(peers: Peers, phase: int) -> None:
    """Write down where this process's devices are while they are in no program (see ``faults.where``)."""
    for r in peers.own:
        peers.whereabouts[r] = phase


class Alone:
    """One process drives all devices, a thread each."""

    asynchronous = False
    backend = "memory"

    def __init__(self, devices: int) -> None:
        self.own = tuple(range(devices))
        self.whereabouts: MutableSequence[int] = [-1] * devices
        self.table: ProgramTable | None = None
        self.limit = TimeLimit(None)
        self._locks: dict[torch.device, threading.Lock] = {}

    def look(self) -> Sequence[int]:
        """All of them are here."""
        return self.whereabouts

    def exchange(self, value: T) -> list[T]:
        """There is no one else."""
        return [value]

    def agree(self, work: Callable[[], T]) -> list[T]:
        """Do ``work``; what it raises passes through."""
        return [work()]

    def agree_own(self, work: Callable[[], T]) -> T:
        """Do ``work``; what it raises passes through."""
        return work()

    def agree_numbers(self, work: Callable[[], Numbers]) -> np.ndarray:
        """Do ``work``; what it raises passes through."""
        return np.asarray(work(), np.float64)[None]

    def gather(self, value: T) -> list[T] | None:
        """There is no one else."""
        return [value]

    def hand_over(self, moves: Sequence[Move], routes: Sequence[tuple[int, int]]) -> None:
        """There is no one else: nothing moves."""

    def open_wire(
        self,
        messages: Mapping[Channel, Sequence[Route]],
        places: Sequence[torch.device],
        sizes: Sequence[int],
        *,
        signature: Any = None,
        **link: Any,
    ) -> Wire:
        """Queues in this process's memory."""
        return Wire(messages, places, **link)

    def clock_offsets(self) -> tuple[list[float], float]:
        """One clock."""
        return [0.0], 0.0

    def turn(self, place: torch.device, places: Sequence[torch.device]) -> Any:
        """A lock for each GPU that several devices share, and one for the interpreter, which they share on a CPU."""
        if list(places).count(place) < 2:
            return None
        return self._locks.setdefault(place, threading.Lock())

    def abandon(self, error: BaseException) -> bool:
        """There is no one else."""
        return False

    def close(self) -> None:
        """Nothing is left running between steps."""
