"""A line between two processes of one machine: messages, and open files with them."""

from __future__ import annotations

import array
import pickle
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

__all__ = ["Link"]

_HEADER = struct.Struct("!QI")
_MOST_FILES = 64


class Link:
    """One end. ``send`` and ``receive`` whole messages; EOFError when the other end is gone."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @classmethod
    def pair(cls) -> tuple[Link, Link]:
        """Two ends of one line."""
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(a), cls(b)

    def fileno(self) -> int:
        """For ``select`` and for passing the end on."""
        return self._socket.fileno()

    def send(self, message: Any, files: Sequence[int] = ()) -> None:
        """Send ``message``, pickled, and duplicates of open ``files``."""
        self.send_packed(pickle.dumps(message), files)

    def send_packed(self, data: bytes, files: Sequence[int] = ()) -> None:
        """The same of a message that has been pickled."""
        carried = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
        parts = [_HEADER.pack(len(data), len(files)), data]
        try:
            sent = self._socket.sendmsg(parts, carried)
            if sent < _HEADER.size + len(data):
                self._socket.sendall(b"".join(parts)[sent:])
        except OSError as error:
            raise EOFError(str(error)) from None

    def receive(self) -> tuple[Any, list[int]]:
        """(message, files)."""
        room = _MOST_FILES * array.array("i").itemsize
        try:
            header, ancillary, _, _ = self._socket.recvmsg(_HEADER.size, socket.CMSG_LEN(room))
            files = array.array("i")
            for level, kind, data in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    files.frombytes(data[: len(data) - len(data) % files.itemsize])
            header += self._read(_HEADER.size - len(header)) if header else b""
            if not header:
                raise EOFError("the other end is closed")
            size, _ = _HEADER.unpack(header)
            return pickle.loads(self._read(size)), list(files)
        except OSError as error:
            raise EOFError(str(error)) from None

    def close(self) -> None:
        """Hang up: the other end's ``receive`` raises EOFError, even if a forked child still holds this end."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def drop(self) -> None:
        """Close this process's hold on an end that another process goes on using."""
        self._socket.close()

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            count = self._socket.recv_into(view)
            if not count:
                raise EOFError("the other end is closed")
            view = view[count:]
        return data
