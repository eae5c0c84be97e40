"""A line between two processes of one host: a Unix socket, and beside it memory that both see.

A message says what it looks like by the number of a layout, which is told once. Small tensors travel in the socket:
one copy in, by whoever sends, and one out. Large ones are copied into shared memory; the receiver's tensors lie there
until they die, and then the room is the sender's again. A send waits for no one: what the socket does not take a
thread sends on.
"""

from __future__ import annotations

import array
import ctypes
import errno
import math
import mmap
import os
import pickle
import queue
import socket
import struct
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipelab.runtime.processes.block import nameless_file

__all__ = ["SHARED", "Layout", "LocalLine"]

SHARED = 1 << 16
"""Bytes from which on a message goes through shared memory.

With room to spare in the socket that pays from 256 KiB on (measured: 1 MiB 0.4 ms against 1.0; 64 KiB 0.2 against
0.1). But a socket holds about 200 KiB, and what it does not take goes through a thread.
"""
_HEADER = struct.Struct("=iiqd")
"""What it is (a layout's number, or one of those below), room in shared memory (-1: none), bytes, time stamp."""
_LAYOUT, _SEGMENT = -1, -2
_ROOM = struct.Struct("=i")
_BUFFER = 2 * SHARED
_ALIGNED = 64
_AT_ONCE = socket.MSG_DONTWAIT
_FILES = socket.CMSG_LEN(array.array("i").itemsize)


class Layout(NamedTuple):
    """What a message looks like: shapes and dtypes; whether it is one lone tensor; which tensors take a gradient.

    ``packed``: see ``Payload``.
    """

    tensors: tuple[tuple[torch.Size, torch.dtype], ...]
    single: bool = False
    takes_gradient: tuple[bool, ...] = ()
    packed: tuple[torch.dtype | None, ...] = ()

    @classmethod
    def of(
        cls,
        tensors: Sequence[Tensor],
        single: bool = False,
        takes_gradient: tuple[bool, ...] = (),
        packed: tuple[torch.dtype | None, ...] = (),
    ) -> Layout:
        """What ``tensors`` look like."""
        return cls(tuple([(t.shape, t.dtype) for t in tensors]), single, takes_gradient, packed)

    def sizes(self) -> list[int]:
        """Bytes of each tensor."""
        return [shape.numel() * dtype.itemsize for shape, dtype in self.tensors]


class LocalLine:
    """One channel seen from one of its ends."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._rooms: list[tuple[mmap.mmap, int, int]] = []
        """(memory, where in it, size), by number: the same at both ends."""
        # The sender's: layouts' numbers and sizes, what waits for the socket, rooms that are free or coming back.
        self._numbers: dict[Layout, tuple[int, int, list[int]]] = {}
        self._lock, self._waiting = threading.Lock(), 0
        self._later: queue.SimpleQueue[tuple[bytes, _File | None] | None] = queue.SimpleQueue()
        self._sender: threading.Thread | None = None
        self._free: dict[int, list[int]] = {}
        self._back = b""
        # The receiver's: what was read and not taken, layouts, open files that came along, rooms on their way back.
        self._open_buffer(_BUFFER)
        self._start = self._stop = 0
        self._layouts: list[tuple[Layout, list[int], list[Tensor]]] = []
        self._files: list[int] = []
        self._returned: deque[bytes] = deque()
        self._returning = threading.Lock()

    # ---- sending -------------------------------------------------------------------------------------------------

    def send(self, layout: Layout, tensors: Sequence[Tensor], stamp: float = math.nan, producer: Any = None) -> None:
        """Send a copy; comes back at once. Raises OSError if the line is cut."""
        known = self._numbers.get(layout)
        if known is None:
            sizes = layout.sizes()
            known = self._numbers[layout] = len(self._numbers), sum(sizes), sizes
            told = pickle.dumps(layout)
            self._put([_HEADER.pack(_LAYOUT, -1, len(told), stamp), told], _HEADER.size + len(told))
        number, size, sizes = known
        if size < SHARED:
            self._put([_HEADER.pack(number, -1, size, stamp), *map(_bytes_of, tensors)], _HEADER.size + size)
            return
        room = self._take_room(sum(map(_aligned, sizes)))
        memory, at, _ = self._rooms[room]
        for tensor, count in zip(tensors, sizes, strict=True):
            if count:
                _seen(memory, at, count, tensor.shape, tensor.dtype).copy_(tensor.detach())
            at += _aligned(count)
        self._put([_HEADER.pack(number, room, size, stamp)], _HEADER.size)

    def _take_room(self, size: int) -> int:
        """The number of a room of that size: one that has come back, or a new one."""
        size = max(1 << (size - 1).bit_length(), mmap.PAGESIZE)  # pages that no one touches take no memory
        free = self._free.setdefault(size, [])
        if not free:
            self._take_back()
        if not free:  # twice as many as there were: a process may have but so many open files
            count = max(1, sum(1 for _, _, other in self._rooms if other == size))
            file = nameless_file(count * size)
            self._put([_HEADER.pack(_SEGMENT, count, size, 0.0)], _HEADER.size, _File(os.dup(file)))
            free += self._add_rooms(file, count, size)
        return free.pop()

    def _take_back(self) -> None:
        with suppress(BlockingIOError):
            while data := self._end.recv(_BUFFER, _AT_ONCE):
                self._back += data
        whole = len(self._back) - len(self._back) % _ROOM.size
        for (room,) in _ROOM.iter_unpack(self._back[:whole]):
            self._free[self._rooms[room][2]].append(room)
        self._back = self._back[whole:]

    def _add_rooms(self, file: int, count: int, size: int) -> range:
        memory, first = mmap.mmap(file, count * size), len(self._rooms)
        os.close(file)
        self._rooms += [(memory, number * size, size) for number in range(count)]
        return range(first, first + count)

    def _put(self, parts: Sequence[Any], size: int, file: _File | None = None) -> None:
        """``size`` bytes into the socket, as much as it takes; a thread sends the rest."""
        with self._lock:
            sent = 0
            if not self._waiting:
                try:
                    sent = self._end.sendmsg(parts, _carrying(file), _AT_ONCE)
                except BlockingIOError:
                    sent = 0
                if sent == size:
                    return
            self._waiting += 1
            self._later.put((b"".join(parts)[sent:], None if sent else file))
            if self._sender is None:
                self._sender = threading.Thread(target=self._send_later, name="pipelab sends", daemon=True)
                self._sender.start()

    def _send_later(self) -> None:
        while (item := self._later.get()) is not None:
            try:
                sent = self._end.sendmsg([item[0]], _carrying(item[1]))
                self._end.sendall(item[0][sent:])
            except Exception:  # noqa: BLE001 (cut, or out of memory or files: what follows must not be taken for it)
                with suppress(OSError):
                    self._end.shutdown(socket.SHUT_RDWR)
                return
            with self._lock:
                self._waiting -= 1

    # ---- receiving -----------------------------------------------------------------------------------------------

    def receive(self) -> tuple[Layout, list[Tensor], float]:
        """(layout, tensors, time stamp) of the next message; waits for it. Raises OSError if the line is cut."""
        while True:
            what, room, size, stamp = _HEADER.unpack_from(self._buffer, self._next(_HEADER.size))
            if what >= 0:
                break
            if what == _SEGMENT:
                if not self._files:
                    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
                self._add_rooms(self._files.pop(0), room, size)
                continue
            start = self._next(size)
            layout: Layout = pickle.loads(self._buffer[start : start + size])
            sizes = layout.sizes()
            told = layout.tensors if sum(sizes) < SHARED else ()
            like = [torch.empty(shape, dtype=dtype, device="cpu") for shape, dtype in told]
            for one in like:  # what a message looks like needs no memory
                one.untyped_storage().resize_(0)
            self._layouts.append((layout, sizes, like))
        layout, sizes, like = self._layouts[what]
        if room >= 0:
            return layout, self._lent(room, layout, sizes), stamp
        source = self._base + self._next(size)
        tensors = [torch.empty_like(one) for one in like]
        for tensor, count in zip(tensors, sizes, strict=True):
            ctypes.memmove(tensor.data_ptr(), source, count)
            source += count
        return layout, tensors, stamp

    def _lent(self, room: int, layout: Layout, sizes: Sequence[int]) -> list[Tensor]:
        """Tensors in a room, which is given back when the last of them is gone, and all that autograd kept of them."""
        memory, at, size = self._rooms[room]
        lent = (ctypes.c_char * size).from_buffer(memory, at)
        weakref.finalize(lent, self._give_back, room).atexit = False
        tensors, at = [], 0
        for (shape, dtype), count in zip(layout.tensors, sizes, strict=True):
            tensors.append(_seen(lent, at, count, shape, dtype))
            at += _aligned(count)
        return tensors

    def _give_back(self, room: int) -> None:
        """Called where a tensor dies, which may be in the middle of itself. What does not go now goes with the next."""
        self._returned.append(_ROOM.pack(room))
        if self._returning.acquire(blocking=False):
            try:
                while self._returned:
                    rest = self._returned[0][self._end.send(self._returned[0], _AT_ONCE) :]
                    self._returned.popleft()
                    if rest:
                        self._returned.appendleft(rest)
            except OSError:  # it is full, or cut
                pass
            finally:
                self._returning.release()

    def _next(self, size: int) -> int:
        """Where in the buffer the next bytes are; waits for them."""
        while self._stop - self._start < size:
            if len(self._buffer) - self._start < size:
                rest = self._buffer[self._start : self._stop]
                if len(self._buffer) < size:
                    self._open_buffer(size)
                self._view[: len(rest)] = rest
                self._start, self._stop = 0, len(rest)
            count, ancillary, _, _ = self._end.recvmsg_into([self._view[self._stop :]], _FILES)
            if not count:
                raise ConnectionError("the process at the other end is gone")
            for _, _, data in ancillary:
                self._files += array.array("i", data)
            self._stop += count
        self._start += size
        start = self._start - size
        if self._start == self._stop:
            self._start = self._stop = 0
        return start

    def _open_buffer(self, size: int) -> None:
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))

    # ---- one tensor that both ends know of -----------------------------------------------------------------------

    def hand(self, tensor: Tensor) -> None:
        """Send a copy of a tensor that the other end expects."""
        self.send(Layout.of([tensor]), [tensor])

    def expect(self, tensor: Tensor) -> Callable[[], Tensor]:
        """What waits for a tensor like this one."""
        return lambda: self.receive()[1][0]

    # ---- its end -------------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Nothing is kept of what was sent."""

    def hang_up(self, *, at_once: bool = True) -> None:
        """Cut the line: who waits at either end, in any thread, raises."""
        self._later.put(None)
        with suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)

    def settle(self, seconds: float) -> None:
        """After hanging up: wait for the thread that sends, and let go."""
        if self._sender is not None:
            self._sender.join(seconds)
        self._end.close()
        self._rooms.clear()
        self._free.clear()
        while self._files:
            os.close(self._files.pop())


class _File:
    """An open file on its way to another process; closed when no one has it any more."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


def _carrying(file: _File | None) -> Sequence[tuple[int, int, Any]]:
    return () if file is None else ((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.number])),)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _bytes_of(tensor: Tensor) -> Any:
    """The tensor's bytes where they are, if they lie there in order; else of a copy."""
    if not (tensor.is_contiguous() and tensor.is_cpu) or tensor.is_conj() or tensor.is_neg():
        tensor = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu").copy_(tensor.detach())
        return tensor.view(-1).view(torch.uint8).numpy()
    return (ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr()) if tensor.numel() else b""


def _seen(memory: Any, start: int, size: int, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """A tensor in ``memory``, which lives as long as it does."""
    if not size:
        return torch.empty(shape, dtype=dtype, device="cpu")
    storage = torch.frombuffer(memory, dtype=torch.uint8, offset=start, count=size).untyped_storage()
    room = torch.empty(0, dtype=dtype, device="cpu")  # no view: a leaf's data may be exchanged
    return room.set_(storage, 0, shape)  # type: ignore[call-overload]
