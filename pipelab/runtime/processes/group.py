"""The pipeline's own group of processes: rank r drives device r.

Ranks count within this group, never in the world, so that a data- or tensor-parallel mesh can be put around it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pickle
import platform
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from pipelab.errors import ConfigurationError, PipelabError, ScheduleError
from pipelab.runtime.device.channels import Aborted
from pipelab.runtime.peers import Move
from pipelab.runtime.processes.carry import pack
from pipelab.runtime.processes.errors import CarriedError, LostError, is_known_to_all, known_to_all
from pipelab.runtime.processes.lines import FOREVER, Lines
from pipelab.runtime.processes.wire import GroupWire, as_bytes
from pipelab.schedules.wire import Channel, Route

__all__ = ["CONNECT", "ROLL_CALL", "Group", "host_id", "roll_call"]

T = TypeVar("T")

CONNECT = timedelta(seconds=60)
"""How long sockets may take to connect."""
ROLL_CALL = timedelta(minutes=5)
"""How long ranks wait for each other to come."""
_PING_ROUNDS = 8


@dataclass(frozen=True)
class _Said:
    """What one rank came to in ``agree``."""

    value: Any = None
    error: CarriedError | None = None
    stopped: str | None = None


@cache
def host_id() -> str:
    """The same for all processes that read one clock: the machine, since its last boot."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return platform.node()


class Group:
    """The processes of one pipeline, over ``store``. All ranks make one in the same order.

    ``prefix`` keeps this group's keys apart from others' in the store. Raises PipelabError if they cannot connect.
    """

    def __init__(self, store: Any, rank: int, size: int, prefix: str, place: torch.device) -> None:
        self.rank, self.size = rank, size
        roll_call(store, f"{prefix}/here", rank, size)
        self.own: tuple[int, ...] = (rank,)
        self._store = dist.PrefixStore(prefix, store)
        self._control: Any = dist.ProcessGroupGloo(dist.PrefixStore("control", self._store), rank, size, CONNECT)
        told = self.exchange((host_id(), str(place), _gpu_id(place), secrets.token_hex(8)))
        self.hosts = [host for host, _, _, _ in told]
        self.places = tuple(torch.device(name) for _, name, _, _ in told)
        self._gpus, self._token = [gpu for _, _, gpu, _ in told], told[0][3]
        own_gpu_each = None not in self._gpus and len(set(self._gpus)) == size
        self.backend = "nccl" if own_gpu_each and dist.is_nccl_available() else "gloo"
        """What carries the tensors."""
        self.asynchronous = self.backend == "nccl"
        self._lines = self._new_lines(0)
        self._locks: dict[torch.device, _FileLock] = {}

    # ---- saying and deciding things together ---------------------------------------------------------------------

    def exchange(self, value: T) -> list[T]:
        """Everyone's value, one entry a rank."""
        return self._exchange("values", value, _packed("values", value))

    def _exchange(self, topic: str, value: T, data: bytes) -> list[T]:
        mine = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        sizes = self._gather(torch.tensor([len(mine)], device="cpu"))
        longest = max(int(size) for size in sizes)
        padded = torch.zeros(longest, dtype=torch.uint8, device="cpu")
        padded[: len(mine)] = mine
        heard = [
            (topic, value) if r == self.rank else pickle.loads(found.numpy()[: int(size)].tobytes())
            for r, (found, size) in enumerate(zip(self._gather(padded), sizes, strict=True))
        ]
        if any(other != topic for other, _ in heard):
            raise ConfigurationError(
                "the ranks of this pipeline disagree about what to do: each call of step, evaluate, verify, profile, "
                "gather and load_state_dict has to be made by all ranks, in the same order"
            )
        return [one for _, one in heard]

    def agree(self, work: Callable[[], T]) -> list[T]:
        """Do ``work`` and exchange what came out. If it raises on any rank, it raises on all."""
        own: BaseException | None = None
        try:
            said = _Said(work())
            data = _packed("outcomes", said)
        except BaseException as error:  # noqa: BLE001 (the others must hear of it, whatever it is)
            if isinstance(error, Aborted):
                said = _Said(stopped=str(error) or "stopped")
            else:
                own, said = error, _Said(error=CarriedError.of(error))
            data = _packed("outcomes", said)
        everyone = self._exchange("outcomes", said, data)
        verdict = self._verdict(own, everyone)
        if verdict is not None:
            known_to_all(verdict)
            raise verdict
        return [one.value for one in everyone]

    def _verdict(self, own: BaseException | None, everyone: Sequence[_Said]) -> BaseException | None:
        """What to raise: the first rank's error, if there is one."""
        if own is not None and not isinstance(own, Exception):
            return own  # KeyboardInterrupt stays what it is, here
        for r, one in enumerate(everyone):
            if one.error is not None:
                return own if own is not None and r == self.rank else one.error.rebuild()
        for r, one in enumerate(everyone):
            if one.stopped is not None:
                return PipelabError(f"the step was stopped on rank {r}: {one.stopped}")
        return None

    def abandon(self, error: BaseException) -> None:
        """If the others do not know of ``error``: end their waits, and this group.

        What is wrong with how the pipeline was called is found on all ranks alike.
        """
        if not (is_known_to_all(error) or isinstance(error, ConfigurationError | ScheduleError)):
            self.close()

    def agree_own(self, work: Callable[[], T]) -> T:
        """Do ``work``, which may come to what cannot travel. If it raises anywhere, it raises everywhere."""
        found: list[T] = []
        self.agree(lambda: found.append(work()))
        return found[0]

    def gather(self, value: T) -> list[T] | None:
        """Everyone's value on rank 0; None elsewhere."""
        packed: list[bytes] = []
        self.agree(lambda: packed.append(pack(value, "what rank 0 asked for")) if self.rank else None)
        if self.rank != 0:
            data = torch.frombuffer(bytearray(packed[0]), dtype=torch.uint8)
            self._transfer(self._control.send, torch.tensor([len(data)], device="cpu"), 0)
            self._transfer(self._control.send, data, 0)
            return None
        found = [value]
        for r in range(1, self.size):
            size = torch.zeros(1, dtype=torch.int64, device="cpu")
            self._transfer(self._control.recv, size, r)
            data = torch.empty(int(size), dtype=torch.uint8, device="cpu")
            self._transfer(self._control.recv, data, r)
            found.append(pickle.loads(data.numpy().tobytes()))
        return found

    def hand_over(self, moves: Sequence[Move], routes: Sequence[tuple[int, int]]) -> None:
        """Each route has a line of its own, as messages have: sends wait for no one, receives come in their order."""
        channels = [Channel("tied", source, destination) for source, destination in routes if source != destination]
        if not channels:
            return
        lines = self._connected(channels)
        waits = []
        try:
            with _lost():
                for move in moves:
                    line = lines[Channel("tied", move.source, move.destination)]
                    if move.source == self.rank:
                        line.send([as_bytes(move.tensor, lines.place)])
                    else:
                        room = torch.empty(move.tensor.shape, dtype=move.tensor.dtype, device=lines.place)
                        waits.append((move.tensor, room, line, line.post([room.view(-1).view(torch.uint8)])))
                for tensor, room, line, works in waits:
                    line.wait(works)
                    tensor.copy_(room)
        except (KeyError, AttributeError):  # another thread has hung up
            raise LostError("a process of this pipeline is gone: the lines were dropped") from None

    # ---- the wire ------------------------------------------------------------------------------------------------

    def open_wire(
        self,
        messages: Mapping[Channel, Sequence[Route]],
        places: Sequence[torch.device],
        sizes: Sequence[int],
        *,
        signature: Any = None,
        latency: float = 0.0,
        bandwidth: float = float("inf"),
        **_: Any,
    ) -> GroupWire:
        """A wire for one step. The first with new channels connects them, on all ranks."""
        if len(set(self.hosts)) > 1 and (latency or bandwidth < float("inf")):
            raise ConfigurationError("a link is modelled between processes of one host only; leave latency= out")
        lines = self._connected(messages)
        return GroupWire(lines, messages, places[self.rank], sizes, signature, latency, bandwidth)

    def _connected(self, channels: Iterable[Channel]) -> Lines:
        """Lines on which all of ``channels`` are connected; asked for by all ranks alike."""
        if self._lines.cut:  # an error has ended the last step
            self._lines = self._new_lines(self._lines.generation + 1)
        if not self._lines.knows(channels):
            try:
                self.agree(lambda: self._lines.connect(channels))
            except BaseException:
                self._lines.hang_up()
                raise
        return self._lines

    def _new_lines(self, generation: int) -> Lines:
        store = dist.PrefixStore(f"lines{generation}", self._store)
        return Lines(store, self.rank, self.size, self.backend, self.places[self.rank], generation, CONNECT)

    # ---- clocks and shared GPUs ----------------------------------------------------------------------------------

    def clock_offsets(self) -> tuple[list[float], float]:
        """Seconds to add to each rank's clock to read rank 0's, and how far off that may be.

        Processes of one host read one clock. Other hosts' clocks are compared by ping-pong with one rank of each: the
        shortest round trip of several bounds the error by its half (Cristian, Probabilistic clock synchronization,
        1989).
        """
        if len(set(self.hosts)) == 1:
            return [0.0] * self.size, 0.0
        leaders = {host: r for r, host in reversed(list(enumerate(self.hosts)))}
        mine: dict[str, tuple[float, float]] = {self.hosts[0]: (0.0, 0.0)}
        for host, leader in sorted(leaders.items(), key=lambda pair: pair[1]):
            if leader == 0:
                continue
            if self.rank == 0:
                mine[host] = min((self._ping(leader) for _ in range(_PING_ROUNDS)), key=lambda found: found[1])
            elif self.rank == leader:
                for _ in range(_PING_ROUNDS):
                    self._pong()
        measured = self.exchange(mine)[0]
        errors = sorted(error for _, error in measured.values())
        return [measured[host][0] for host in self.hosts], sum(errors[-2:])  # a message has two ends

    def _ping(self, leader: int) -> tuple[float, float]:
        sent = time.perf_counter()
        self._transfer(self._control.send, torch.zeros(1, dtype=torch.float64, device="cpu"), leader)
        theirs = torch.zeros(1, dtype=torch.float64, device="cpu")
        self._transfer(self._control.recv, theirs, leader)
        back = time.perf_counter()
        return (sent + back) / 2 - float(theirs), (back - sent) / 2

    def _pong(self) -> None:
        token = torch.zeros(1, dtype=torch.float64, device="cpu")
        self._transfer(self._control.recv, token, 0)
        token.fill_(time.perf_counter())
        self._transfer(self._control.send, token, 0)

    def turn(self, place: torch.device, places: Sequence[torch.device]) -> Any:
        """A lock between processes for a GPU that several ranks of this host share. An interpreter each has its own."""
        mine = self._gpus[self.rank]
        if mine is None or self._gpus.count(mine) < 2:
            return None
        if place not in self._locks:
            name = f"pipelab-{self._token}-{hashlib.sha256(mine.encode()).hexdigest()[:16]}.lock"
            self._locks[place] = _FileLock(Path(tempfile.gettempdir()) / name)
        return self._locks[place]

    def close(self) -> None:
        """Let go of all connections. Ranks need not do so together."""
        self._lines.hang_up()
        self._lines.settle()
        for lock in self._locks.values():
            lock.close()
        self._control = None

    # ---- gloo underneath -----------------------------------------------------------------------------------------

    def _gather(self, tensor: Tensor) -> list[Tensor]:
        if self._control is None:
            raise PipelabError("this Pipeline is closed; make a new one")
        found = [torch.empty_like(tensor, device="cpu") for _ in range(self.size)]
        options = dist.distributed_c10d.AllgatherOptions()
        options.timeout = FOREVER  # others may be computing
        with _lost():
            self._control.allgather([found], [tensor], options).wait(FOREVER)
        return found

    @staticmethod
    def _transfer(how: Callable[[list[Tensor], int, int], Any], tensor: Tensor, peer: int) -> None:
        with _lost():
            how([tensor], peer, 0).wait(FOREVER)


def _packed(topic: str, value: Any) -> bytes:
    return pickle.dumps((topic, value))


@contextmanager
def _lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise LostError(f"a process of this pipeline is gone, or the network between them: {reason}") from None


def roll_call(store: Any, name: str, rank: int, size: int) -> None:
    """Wait until all ranks are there, but not for ever. Raises PipelabError that names who is missing."""
    names = [f"{name}/{r}" for r in range(size)]
    store.set(names[rank], b"here")
    try:
        store.wait(names, ROLL_CALL)
    except RuntimeError:
        missing = [str(r) for r, key in enumerate(names) if not store.check([key])]
        seconds = ROLL_CALL.total_seconds()
        raise PipelabError(
            f"rank {rank} has waited {seconds:g} s for rank {', '.join(missing) or 'none'} to come"
        ) from None


def _gpu_id(place: torch.device) -> str | None:
    """Which GPU it is, whatever it is called in this process; None for a CPU."""
    if place.type != "cuda":
        return None
    properties = torch.cuda.get_device_properties(place)
    return str(getattr(properties, "uuid", f"{host_id()} {place}"))


class _FileLock:
    """A lock between processes of one host."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)

    def acquire(self) -> None:
        """Wait for it."""
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def release(self) -> None:
        """Let the next one in."""
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Remove it."""
        os.close(self._file)
        self._path.unlink(missing_ok=True)
