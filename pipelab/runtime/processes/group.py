"""The pipeline's own group of processes: rank r drives device r.

Ranks count within this group, never in the world, so that a data- or tensor-parallel mesh can be put around it.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import platform
import secrets
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSequence, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from pipelab.errors import ConfigurationError, LostProcessError, PipelabError, ScheduleError, TimeLimitError
from pipelab.runtime.device.channels import Aborted, Stopped
from pipelab.runtime.device.program import FAILED, ProgramTable
from pipelab.runtime.faults.deadlock import is_stuck
from pipelab.runtime.faults.limit import TimeLimit
from pipelab.runtime.faults.where import described, lost_process
from pipelab.runtime.peers import Move, Numbers
from pipelab.runtime.processes.carry import pack
from pipelab.runtime.processes.errors import CarriedError, is_known_to_all, known_to_all
from pipelab.runtime.processes.wires.board import Board, Far
from pipelab.runtime.processes.wires.home import Home, address
from pipelab.runtime.processes.wires.lines import Lines
from pipelab.runtime.processes.wires.rounds import GlooRounds
from pipelab.runtime.processes.wires.ticker import Ticker
from pipelab.runtime.processes.wires.turn import FileLock, gpu_id
from pipelab.runtime.processes.wires.wire import GroupWire
from pipelab.schedules.wire import Channel, Route
from pipelab.simulation.links import INSTANT, Links

__all__ = ["CONNECT", "ROLL_CALL", "Group", "host_id", "roll_call"]

T = TypeVar("T")

CONNECT = timedelta(seconds=60)
"""How long sockets may take to connect."""
ROLL_CALL = timedelta(minutes=5)
"""How long ranks wait for each other to come."""
_VALUES, _OUTCOMES, _NUMBERS, _GATHERED = range(4)
"""What a round is about: all ranks must mean the same."""
_WELL, _ERROR, _STOPPED = range(3)
"""How it went on a rank."""


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

    def __init__(
        self,
        store: Any,
        rank: int,
        size: int,
        prefix: str,
        place: torch.device,
        board: Board | None = None,
    ) -> None:
        self.rank, self.size = rank, size
        own = (host_id(), address(host_id()), str(place), gpu_id(place), secrets.token_hex(8))
        self._far = Far(dist.PrefixStore(f"{prefix}/whereabouts", store), rank)
        told = [json.loads(said) for said in roll_call(store, f"{prefix}/here", rank, size, json.dumps(own).encode())]
        self.own: tuple[int, ...] = (rank,)
        self.store = dist.PrefixStore(prefix, store)
        self.hosts = [host for host, *_ in told]
        self.places = tuple(torch.device(name) for _, _, name, _, _ in told)
        here = [r for r in range(size) if told[r][1] == told[rank][1]]
        self._home = Home(dist.PrefixStore(f"home{here[0]}", self.store), here, rank, CONNECT)
        self._board = board or self._home.pass_on(partial(Board, size))
        self._board.claim(rank)
        self._borrowed = board is not None
        self.whereabouts: MutableSequence[int] = self._board.whereabouts
        self.table: ProgramTable | None = None
        self.limit = TimeLimit(None)
        self._far.begin([r for r in range(size) if r not in here], self.whereabouts)
        weakref.finalize(self, self._far.close)
        self._rounds: Home | GlooRounds | None = self._home
        if len(here) < size:
            self._rounds = GlooRounds(dist.PrefixStore("control", self.store), rank, size, CONNECT)
        self._gpus, self._token = [gpu for _, _, _, gpu, _ in told], told[0][4]
        own_gpu_each = None not in self._gpus and len(set(self._gpus)) == size
        self.backend = "nccl" if own_gpu_each and dist.is_nccl_available() else "gloo"
        """What carries the tensors."""
        self.asynchronous = self.backend == "nccl"
        self._lines = self._new_lines(0)
        self._locks: dict[torch.device, FileLock] = {}

    def look(self) -> Sequence[int]:
        """The whereabouts of all devices."""
        with self._lost():
            return self._far.look(self.whereabouts)

    # ---- saying and deciding things together ---------------------------------------------------------------------

    def exchange(self, value: T) -> list[T]:
        """Everyone's value, one entry a rank."""
        heard = self._say(_VALUES, _WELL, pickle.dumps(value))
        return [value if r == self.rank else pickle.loads(data) for r, (_, data) in enumerate(heard)]

    def agree(self, work: Callable[[], T]) -> list[T]:
        """Do ``work`` and exchange what came out. If it raises on any rank, it raises on all."""
        found: list[T] = []

        def pickled() -> bytes:
            found.append(work())
            return pickle.dumps(found[0])

        heard = self._agree(_OUTCOMES, pickled)
        return [found[0] if r == self.rank else pickle.loads(data) for r, data in enumerate(heard)]

    def agree_own(self, work: Callable[[], T]) -> T:
        """Do ``work``, which may come to what cannot travel. If it raises anywhere, it raises everywhere."""
        found: list[T] = []

        def done() -> bytes:
            found.append(work())
            return b""

        self._agree(_OUTCOMES, done)
        return found[0]

    def agree_numbers(self, work: Callable[[], Numbers]) -> np.ndarray:
        """Do ``work`` and exchange the numbers that came out, [rank, number].

        If it raises anywhere, it raises everywhere.
        """
        heard = self._agree(_NUMBERS, lambda: np.asarray(work(), np.float64).tobytes())
        if len({len(data) for data in heard}) > 1:
            raise ConfigurationError(_DISAGREE)
        return np.frombuffer(b"".join(heard)).reshape(self.size, -1)

    def _say(self, topic: int, outcome: int, data: bytes) -> list[tuple[int, bytes]]:
        """Everyone's (outcome, data)."""
        with self._lost():
            said = self._talking().say(bytes((topic, outcome)) + data, look=self._patience())
        if any(one[0] != topic for one in said):
            raise ConfigurationError(_DISAGREE)
        return [(one[1], one[2:]) for one in said]

    def _patience(self) -> Callable[[], None]:
        return self._board.patience(self.rank, self.limit, self.table, self._far)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """End the waits of what is done in here, by hanging up, when the others do not move.

        In a notebook the caller does that, who ends the processes.
        """
        look, found = self._patience(), list[BaseException]()

        def watch() -> bool:
            try:
                with self._lost():
                    look()
            except PipelabError as error:
                found.append(error)
                self._lines.hang_up()
                self._home.close()
                if self._rounds is not None:
                    self._rounds.close()
            return bool(found)

        watcher = None if self._borrowed else Ticker(1.0, watch, "watch")
        try:
            yield
        except (PipelabError, OSError, RuntimeError) as error:
            raise found[0] if found else error from None
        finally:
            if watcher is not None:
                watcher.stop()

    def _talking(self) -> Home | GlooRounds:
        if self._rounds is None:
            raise PipelabError("this Pipeline is closed; make a new one")
        return self._rounds

    def _agree(self, topic: int, work: Callable[[], bytes]) -> list[bytes]:
        """Everyone's data; if ``work`` raises anywhere, what to raise everywhere is said instead."""
        own: BaseException | None = None
        outcome = _WELL
        try:
            data = work()
        except Aborted as error:
            outcome, data = _STOPPED, (str(error) or "stopped").encode()
        except BaseException as error:
            if isinstance(error, TimeLimitError) and error.stuck:  # they will not answer
                self.close()
                raise
            own, outcome, data = error, _ERROR, pickle.dumps(CarriedError.of(error))
        try:
            everyone = self._say(topic, outcome, data)
        except (LostProcessError, TimeLimitError) as lost:  # perhaps because of it
            raise own or lost from None
        if any(outcome for outcome, _ in everyone):
            verdict = self._verdict(own, everyone)
            known_to_all(verdict)
            raise verdict
        return [data for _, data in everyone]

    def _verdict(self, own: BaseException | None, everyone: Sequence[tuple[int, bytes]]) -> BaseException:
        """What to raise: the first rank's error, if there is one."""
        if own is not None and not isinstance(own, Exception):
            return own  # KeyboardInterrupt stays what it is, here
        for r, (outcome, data) in enumerate(everyone):
            if outcome == _ERROR:
                carried: CarriedError = pickle.loads(data)
                return own if own is not None and r == self.rank else carried.rebuild(r)
        r = next(r for r, (outcome, _) in enumerate(everyone) if outcome == _STOPPED)
        return Stopped(f"the step was stopped on rank {r}: {everyone[r][1].decode()}")

    def abandon(self, error: BaseException) -> bool:
        """If the others do not know of ``error``: end their waits, and this group; whether that was so.

        What is wrong with how the pipeline was called is found on all ranks alike.
        """
        unknown = not (is_known_to_all(error) or isinstance(error, ConfigurationError | ScheduleError))
        if unknown:
            self.close()
        return unknown

    def gather(self, value: T) -> list[T] | None:
        """Everyone's value on rank 0; None elsewhere."""
        packed = self.agree_own(lambda: pack(value, "what rank 0 asked for") if self.rank else b"")
        with self._watched(), self._lost():
            found = self._talking().say(packed, hears=False)
        return None if self.rank else [value, *map(pickle.loads, found[1:])]

    def hand_over(self, moves: Sequence[Move], routes: Sequence[tuple[int, int]]) -> None:
        """Each route has a line of its own, as messages have: sends wait for no one, receives come in their order."""
        channels = [Channel("tied", source, destination) for source, destination in routes if source != destination]
        if not channels:
            return
        lines = self._connected(channels)
        waits = []
        try:
            with self._watched(), self._lost():
                for move in moves:
                    line = lines[Channel("tied", move.source, move.destination)]
                    if move.source == self.rank:
                        line.hand(move.tensor)
                    else:
                        waits.append((move.tensor, line.expect(move.tensor)))
                for tensor, arrived in waits:
                    tensor.copy_(arrived())
        except (KeyError, AttributeError):  # another thread has hung up
            raise self._lost_process("the lines were dropped") from None

    # ---- the wire ------------------------------------------------------------------------------------------------

    def open_wire(
        self,
        messages: Mapping[Channel, Sequence[Route]],
        places: Sequence[torch.device],
        sizes: Sequence[int],
        *,
        signature: Any = None,
        links: Links = INSTANT,
        **_: Any,
    ) -> GroupWire:
        """A wire for one step. The first with new channels connects them, on all ranks."""
        if len(set(self.hosts)) > 1 and links.take_time:
            raise ConfigurationError("a link is modelled between processes of one host only; leave latency= out")
        lines = self._connected(messages)
        self._far.walk += 1
        return GroupWire(lines, messages, places[self.rank], sizes, signature, links)

    def _connected(self, channels: Iterable[Channel]) -> Lines:
        """Lines on which all of ``channels`` are connected; asked for by all ranks alike."""
        if self._lines.cut:  # an error has ended the last step
            self._lines.settle()
            self._lines = self._new_lines(self._lines.generation + 1)
        if not self._lines.knows(channels):
            try:
                self.agree(partial(self._connect, channels))
            except BaseException:
                self._lines.hang_up()
                raise
        return self._lines

    def _connect(self, channels: Iterable[Channel]) -> None:
        with self._watched():
            self._lines.connect(channels)

    def _new_lines(self, generation: int) -> Lines:
        store = dist.PrefixStore(f"lines{generation}", self.store)
        place = self.places[self.rank]
        return Lines(store, self.rank, self.size, self.backend, place, self._home, generation, CONNECT)

    # ---- clocks and shared GPUs ----------------------------------------------------------------------------------

    def clock_offsets(self) -> tuple[list[float], float]:
        """Seconds to add to each rank's clock to read rank 0's, and how far off that may be.

        Processes of one host read one clock. Other hosts' clocks are compared by ping-pong with one rank of each: the
        shortest round trip of several bounds the error by its half (Cristian, Probabilistic clock synchronization,
        1989).
        """
        if len(set(self.hosts)) == 1:
            return [0.0] * self.size, 0.0
        assert isinstance(self._rounds, GlooRounds)
        leaders = {host: r for r, host in reversed(list(enumerate(self.hosts)))}
        with self._watched(), self._lost():
            found = self._rounds.measure_clocks(sorted(r for r in leaders.values() if r))
        measured = self.exchange({0: (0.0, 0.0)} | found)[0]
        errors = sorted(error for _, error in measured.values())
        return [measured[leaders[host]][0] for host in self.hosts], sum(errors[-2:])  # a message has two ends

    def turn(self, place: torch.device, places: Sequence[torch.device]) -> Any:
        """A lock between processes for a GPU that several ranks of this host share. An interpreter each has its own."""
        mine = self._gpus[self.rank]
        if mine is None or self._gpus.count(mine) < 2:
            return None
        if place not in self._locks:
            name = f"pipelab-{self._token}-{hashlib.sha256(mine.encode()).hexdigest()[:16]}.lock"
            self._locks[place] = FileLock(Path(tempfile.gettempdir()) / name)
        return self._locks[place]

    def close(self) -> None:
        """Let go of all connections. Ranks need not do so together."""
        self._lines.hang_up(at_once=False)
        self._lines.settle()
        for lock in self._locks.values():
            lock.close()
        self._locks.clear()
        self._home.close()
        self._far.close()
        if not self._borrowed:
            self._board.close()
        if self._rounds is not None:
            self._rounds.close()
        self._rounds = None

    @contextmanager
    def _lost(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:
            if isinstance(error, PipelabError):
                raise
            raise self._lost_process((str(error) or type(error).__name__).splitlines()[0]) from None

    gone = property(lambda self: self._board.gone(self.rank), doc="Whose process has ended without a word.")

    def _lost_process(self, reason: str) -> LostProcessError:
        """Says which process is gone, if that can be seen."""
        table, now = self.table, self.whereabouts
        for r in sorted(self._board.gone(self.rank), key=lambda r: now[r] == FAILED):  # it ended because of another
            return lost_process("has ended", table, r, now[r], "go on from the last checkpoint")
        others = [r for r in range(self.size) if r != self.rank and table is not None and is_stuck(table, r, now)]
        told = [f"device {r} is {described(table, r, now[r])}" for r in others]
        head = f"a process of this pipeline is gone, or the network between them: {reason}"
        return LostProcessError("; ".join([head, *told]))


_DISAGREE = (
    "the ranks of this pipeline disagree about what to do: each call of step, evaluate, verify, profile, save, load, "
    "gather and load_state_dict has to be made by all ranks, in the same order"
)


def roll_call(store: Any, name: str, rank: int, size: int, word: bytes = b"here") -> list[bytes]:
    """Wait until all ranks are there, but not for ever; returns everyone's ``word``.

    Raises PipelabError that names who is missing.
    """
    names = [f"{name}/{r}" for r in range(size)]
    store.set(names[rank], word)
    try:
        store.wait(names, ROLL_CALL)
    except RuntimeError:
        missing = [str(r) for r, key in enumerate(names) if not store.check([key])]
        seconds = ROLL_CALL.total_seconds()
        raise PipelabError(
            f"rank {rank} has waited {seconds:g} s for rank {', '.join(missing) or 'none'} to come"
        ) from None
    return [store.get(key) for key in names]
