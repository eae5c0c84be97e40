"""Channels inside one process: one first-in-first-out queue per (kind, source, destination).

A device that waits can always be woken: :meth:`Wire.abort` ends every wait with :class:`Aborted`, so that an error on
one device never leaves another hanging.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence

import torch

from pipelab.runtime.payload import Payload
from pipelab.schedules.wire import Channel

__all__ = ["Aborted", "Wire"]


class Aborted(Exception):
    """Another device failed; this one stops."""


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
        self._queues: dict[Channel, deque[Payload]] = {channel: deque() for channel in channels}
        self._free_at = dict.fromkeys(self._queues, 0.0)
        self._changed = threading.Condition()
        self._aborted = False
        self._places = places
        self.outstanding, self.latency, self.bandwidth = outstanding, latency, bandwidth

    def send(self, channel: Channel, payload: Payload) -> None:
        """Put a copy of a message, in the receiver's own memory, on its channel."""
        payload = payload.copy_to(self._places[channel.destination])
        with self._changed:
            queue = self._queues[channel]
            payload.sent = time.perf_counter()
            leaves = max(payload.sent, self._free_at[channel]) + payload.size / self.bandwidth
            self._free_at[channel] = leaves
            payload.ready = leaves + self.latency
            queue.append(payload)
            self._changed.notify_all()

    def settle(self, channels: Iterable[Channel]) -> None:
        """Before a sender's next slot: wait until few enough of its messages are outstanding, if they are bounded."""
        if self.outstanding is None:
            return
        with self._changed:
            for channel in channels:
                while len(self._queues[channel]) > self.outstanding:
                    self._wait()

    def receive(self, channel: Channel) -> Payload:
        """Take the next message of a channel, in the order of sending; wait for it if need be."""
        queue = self._queues[channel]
        with self._changed:
            while not queue:
                self._wait()
            payload = queue.popleft()
            self._changed.notify_all()
            while (left := payload.ready - time.perf_counter()) > 0:
                self._wait(left)
        payload.taken = time.perf_counter()
        return payload

    def abort(self) -> None:
        """Wake everyone who waits, now and later, with Aborted."""
        with self._changed:
            self._aborted = True
            self._changed.notify_all()

    def check(self) -> None:
        """Raise Aborted if another device has failed."""
        if self._aborted:
            raise Aborted

    def _wait(self, seconds: float | None = None) -> None:
        self.check()
        self._changed.wait(seconds)
        self.check()
