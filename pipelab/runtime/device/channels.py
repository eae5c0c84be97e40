"""What a worker and its owner ask of a wire; and the wire inside one process, a queue per (kind, source, destination).

A device that waits can always be woken: :meth:`Wire.abort` ends every wait with :class:`Aborted`, so that an error on
one device never leaves another hanging.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

import torch

from pipelab.runtime.device.payload import Payload
from pipelab.schedules.wire import Channel

__all__ = ["Aborted", "StepWire", "Wire", "WireEnd"]


class Aborted(Exception):
    """Another device failed; this one stops."""


class WireEnd(Protocol):
    """What a worker asks of the wire."""

    def send(self, channel: Channel, payload: Payload) -> float:
        """Send; comes back at once, with the time of sending."""
        ...

    def settle(self, channels: Iterable[Channel]) -> None:
        """Before the next slot: wait for messages to be taken where sends are bounded."""
        ...

    def receive(self, channel: Channel) -> Payload:
        """The next message of the channel, in the order of sending."""
        ...

    def check(self) -> None:
        """Raise Aborted if another device has failed."""
        ...


class StepWire(WireEnd, Protocol):
    """The wire of one step, as its owner sees it."""

    def abort(self) -> None:
        """A device of this process has failed: end every wait, here and at the other ends, with Aborted."""
        ...

    def interrupt(self) -> None:
        """Let this process's devices stop at their next slot; callable from any thread."""
        ...

    def close(self) -> None:
        """The step is over."""
        ...


class _Line:
    """One channel: what was sent and not taken, and whom to wake."""

    __slots__ = ("changed", "free_at", "queue")

    def __init__(self) -> None:
        self.queue: deque[Payload] = deque()
        self.changed = threading.Condition()
        self.free_at = 0.0


class Wire:
    """All channels between the devices of one step; ``places[r]`` is where device r keeps its tensors.

    Sends are asynchronous. With ``outstanding`` set the wire is strict: a device goes on to its next slot only once
    all but that many messages of each channel it has sent on have been taken (rendezvous), as on a wire whose sends
    block.
    ``latency`` and ``bandwidth`` (seconds, bytes per second) delay delivery, to let a slow link be felt.
    """

    def __init__(
        self,
        channels: Iterable[Channel],
        places: Sequence[torch.device],
        *,
        outstanding: int | None = None,
        latency: float = 0.0,
        bandwidth: float = float("inf"),
    ) -> None:
        self._lines = {channel: _Line() for channel in channels}
        self._places = places
        self._aborted = False
        self.outstanding, self.latency, self.bandwidth = outstanding, latency, bandwidth

    def send(self, channel: Channel, payload: Payload) -> float:
        """Put a copy of a message, in the receiver's own memory, on its channel; returns the time of sending."""
        payload = payload.copy_to(self._places[channel.destination])
        line = self._lines[channel]
        with line.changed:
            payload.sent = time.perf_counter()
            line.free_at = max(payload.sent, line.free_at) + payload.size / self.bandwidth
            payload.ready = line.free_at + self.latency
            line.queue.append(payload)
            line.changed.notify_all()
        return payload.sent

    def settle(self, channels: Iterable[Channel]) -> None:
        """Before a sender's next slot: wait until few enough of its messages are outstanding, if they are bounded."""
        if self.outstanding is None:
            return
        for channel in channels:
            line = self._lines[channel]
            with line.changed:
                while len(line.queue) > self.outstanding:
                    self._wait(line)

    def receive(self, channel: Channel) -> Payload:
        """Take the next message of a channel, in the order of sending; wait for it if need be."""
        line = self._lines[channel]
        with line.changed:
            while not line.queue:
                self._wait(line)
            payload = line.queue.popleft()
            line.changed.notify_all()
            while (left := payload.ready - time.perf_counter()) > 0:
                self._wait(line, left)
        payload.taken = time.perf_counter()
        return payload

    def abort(self) -> None:
        """Wake everyone who waits, now and later, with Aborted."""
        self._aborted = True
        for line in self._lines.values():
            with line.changed:
                line.changed.notify_all()

    interrupt = abort

    def close(self) -> None:
        """Nothing to let go of."""

    def check(self) -> None:
        """Raise Aborted if another device has failed."""
        if self._aborted:
            raise Aborted

    def _wait(self, line: _Line, seconds: float | None = None) -> None:
        self.check()
        line.changed.wait(seconds)
        self.check()
