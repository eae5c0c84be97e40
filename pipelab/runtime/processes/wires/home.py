"""The ranks of one host, which reach each other through a folder: they speak in a star, over Unix sockets.

Between processes of one host a gloo message costs two hand-overs between threads at either end. Here whoever speaks
does so itself. The first of the ranks hears the others, and tells all what all have said; it also makes the sockets
of further lines, and hands each of the two their end.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from pipelab.runtime.processes.wires.board import Board
from pipelab.schedules.wire import Channel

__all__ = ["Home", "address"]

_LONGEST = 100
"""Bytes of a socket's path; a system takes 104 or more."""
_LENGTH = struct.Struct("=Q")
_ROOM = 1 << 18
"""Bytes that a socket may hold: as Linux has it, and more than macOS has."""


def address(host: str) -> tuple[Any, ...]:
    """The same for processes of a host that may meet: of one user, with one folder for what is temporary."""
    found = os.stat(_folder())
    return host, os.getuid(), found.st_dev, found.st_ino


def _folder() -> str:
    folder = tempfile.gettempdir()
    return folder if len(os.fsencode(folder)) < _LONGEST - 24 else "/tmp"


class Home:
    """The ``ranks`` of one host, in order; ``store`` is where they tell each other where they meet.

    Raises OSError or RuntimeError if they do not within ``patience``.
    """

    def __init__(self, store: Any, ranks: Sequence[int], rank: int, patience: timedelta) -> None:
        self.ranks, self._rank, self._first = tuple(ranks), rank, ranks[0]
        self._lengths = struct.Struct(f"={len(ranks)}Q")
        self._room = bytearray(_ROOM)
        self._ends: list[socket.socket] = []
        """At the first rank: to the others, in order. At the others: to the first."""
        if len(ranks) == 1:
            return
        if rank == self._first:
            self._ends = _let_in(store, len(ranks) - 1, patience.total_seconds())
        else:
            store.wait(["door"], patience)
            end = _open_socket()
            self._ends = [end]
            end.connect(store.get("door").decode())
            end.sendall(_LENGTH.pack(self.ranks.index(rank)))

    def say(self, data: bytes, *, hears: bool = True, look: Callable[[], None] = lambda: None) -> list[bytes]:
        """Everyone's data, in the order of ranks. All call it alike; without ``hears`` only the first rank gets them.

        Raises OSError if a rank is gone. ``look`` is called in each second of waiting, and may raise.
        """
        self._look = look
        if not self._ends:
            return [data]
        if self._rank != self._first:
            (end,) = self._ends
            end.sendall(_LENGTH.pack(len(data)) + data)
            return self._heard(end)
        everyone = [data, *(self._told(end) for end in self._ends)]
        told = everyone if hears else [b""] * len(everyone)
        reply = b"".join((self._lengths.pack(*map(len, told)), *told))
        for end in self._ends:
            end.sendall(reply)
        return everyone

    def pass_on(self, board: Callable[..., Board]) -> Board:
        """A board that these ranks share; all of them call it alike."""
        if self._rank != self._first:
            return board(_take_file(self._ends[0]))
        made = board()
        for end in self._ends:
            end.recv(1)
            socket.send_fds(end, [b"!"], [made.file])
        return made

    def connect(self, channels: Iterable[Channel]) -> dict[Channel, socket.socket]:
        """This rank's ends of ``channels``, which are between ranks of this home; all of them call it alike."""
        try:
            return self._connect(channels)
        except BaseException:
            self.close()  # the others are in the middle of it
            raise

    def _connect(self, channels: Iterable[Channel]) -> dict[Channel, socket.socket]:
        found = {}
        for channel in channels:
            if self._rank == self._first:
                pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
                for rank, end in zip((channel.source, channel.destination), pair, strict=True):
                    if rank == self._first:
                        found[channel] = end
                    else:
                        to = self._ends[self.ranks.index(rank) - 1]
                        with closing(end):  # it comes when it is asked for: who reads on would lose it
                            to.recv(1)
                            socket.send_fds(to, [b"!"], [end.fileno()])
            elif self._rank in (channel.source, channel.destination):
                found[channel] = socket.socket(fileno=_take_file(self._ends[0]))
        for end in found.values():
            end.set_inheritable(False)
            _widen(end)
        return found

    def close(self) -> None:
        """Hang up; who waits for this rank raises OSError."""
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _told(self, end: socket.socket) -> bytes:
        got = self._read(end, 0, _LENGTH.size)
        (size,) = _LENGTH.unpack_from(self._room)
        self._read(end, got, _LENGTH.size + size)
        return bytes(self._room[_LENGTH.size : _LENGTH.size + size])

    def _heard(self, end: socket.socket) -> list[bytes]:
        got = self._read(end, 0, self._lengths.size)
        sizes = self._lengths.unpack_from(self._room)
        self._read(end, got, self._lengths.size + sum(sizes))
        view, at, found = memoryview(self._room), self._lengths.size, []
        for size in sizes:
            found.append(bytes(view[at : at + size]))
            at += size
        return found

    def _read(self, end: socket.socket, got: int, wanted: int) -> int:
        """Go on reading until ``wanted`` bytes are there. No one says more before they have been answered."""
        if len(self._room) < wanted:
            self._room.extend(bytes(wanted - len(self._room)))
        while got < wanted:
            try:
                count = end.recv_into(memoryview(self._room)[got:], 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                waiting = select.poll()
                waiting.register(end, select.POLLIN)
                if not waiting.poll(1000.0):
                    self._look()
                continue
            if not count:
                raise ConnectionError("the line was closed")
            got += count
        return got


def _let_in(store: Any, count: int, patience: float) -> list[socket.socket]:
    """Open a door that only this user finds, and wait until the others have come in."""
    folder = tempfile.mkdtemp(prefix="pipelab-", dir=_folder())
    ends: dict[int, socket.socket] = {}
    try:
        with _open_socket() as door:
            path = str(Path(folder) / "door")
            door.bind(path)
            door.listen(count)
            door.settimeout(patience)
            store.set("door", path)
            for _ in range(count):
                end, _ = door.accept()
                _widen(end)
                ends[_LENGTH.unpack(end.recv(_LENGTH.size, socket.MSG_WAITALL))[0]] = end
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return [ends[number] for number in sorted(ends)]


def _take_file(end: socket.socket) -> int:
    """The file that the first rank sends when it is asked for one."""
    end.sendall(b"?")
    _, files, _, _ = socket.recv_fds(end, 1, 1)
    if not files:
        raise ConnectionError("the first process of this host is gone")
    return files[0]


def _open_socket() -> socket.socket:
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    _widen(end)
    return end


def _widen(end: socket.socket) -> None:
    """Room enough, and waits without end, whatever the program's default."""
    end.setblocking(True)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        with suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, option, _ROOM)
