"""What a worker and its owner ask of a wire; and the wire inside one process, a queue per (kind, source, destination).

A device that waits can always be woken: :meth:`Wire.abort` ends every wait with :class:`Aborted`, so that an error on
one device never leaves another hanging.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol

import torch

from pipelab.errors import PipelabError
from pipelab.runtime.device.clocks import sleep_until
from pipelab.runtime.device.payload import Payload
from pipelab.schedules.wire import Channel
from pipelab.simulation.links import INSTANT, Links

__all__ = ["Aborted", "Post", "Receive", "Send", "Settle", "StepWire", "Stopped", "Wire", "WireEnd"]

Send = Callable[[Payload], float]
"""Send a message and come back at once, with the time of sending."""
Receive = Callable[[], Payload | None]
"""The next message of a channel, in the order of sending; waits for it, or where devices take turns gives None if it is
not there yet."""
Post = Callable[[], None]
"""Say, ahead of taking it, that the next message of a channel will be taken."""
Settle = Callable[[], bool]
"""Before a sender's next slot: wait until enough of its messages are taken; where devices take turns, say if so."""


class Aborted(Exception):
    """Another device failed; this one stops."""


class Stopped(Aborted, PipelabError):
    """A whole pipeline has stopped, and knows no more than that something failed elsewhere."""


class WireEnd(Protocol):
    """What a worker asks of the wire."""

    stopped: bool
    """Whether another device has failed: then this one stops before its next slot."""

    def outlet(self, channel: Channel) -> Send:
        """What sends on ``channel``."""
        ...

    def inlet(self, channel: Channel) -> Receive:
        """What receives from ``channel``."""
        ...

    def posting(self, channel: Channel) -> Post | None:
        """What a receiver on ``channel`` does first, for each message that a slot takes; None but where that matters.

        It matters where sends are batched: then the sender's group waits for this, and not for the taking.
        """
        ...

    def settling(self, channel: Channel) -> Settle | None:
        """What a sender on ``channel`` does before its next slot; None where sends are not bounded."""
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
    """One channel: what was sent and not taken; on a strict wire a token for each message no longer waited for."""

    __slots__ = ("free_at", "messages", "tokens", "unsettled")

    def __init__(self) -> None:
        self.messages: SimpleQueue[Payload | None] = SimpleQueue()
        self.tokens: SimpleQueue[bool | None] = SimpleQueue()
        self.unsettled = 0
        self.free_at = 0.0


class Wire:
    """All channels between the devices of one step; ``places[r]`` is where device r keeps its tensors.

    Sends are asynchronous. With ``outstanding`` set the wire is strict: a device goes on to its next slot only once
    all but that many messages of each channel it has sent on have been taken (rendezvous), as on a wire whose sends
    block. ``batched``: then it goes on to take its next slot's messages, and to that slot once both is done.
    ``links`` (seconds, bytes per second) delay delivery, to let a slow link be felt, and pack messages. ``turns``: all
    devices run in one thread, which must not wait.
    """

    def __init__(
        self,
        channels: Iterable[Channel],
        places: Sequence[torch.device],
        *,
        outstanding: int | None = None,
        batched: bool = False,
        links: Links = INSTANT,
        turns: bool = False,
    ) -> None:
        self._lines = {channel: _Line() for channel in channels}
        self._places = places
        self.stopped, self._turns = False, turns
        self.outstanding, self._links, self._modelled = outstanding, links, links.take_time
        self._batched = batched

    def outlet(self, channel: Channel) -> Send:
        """What puts a copy of a message, in the receiver's own memory, on ``channel``."""
        line, place = self._lines[channel], self._places[channel.destination]
        link = self._links.of(channel.source, channel.destination)
        compression = link.compression
        put, now, modelled, strict = line.messages.put, time.perf_counter, self._modelled, self.outstanding is not None

        def send(payload: Payload) -> float:
            if compression is not None:
                payload = payload.pack(compression)
            payload = payload.copy_to(place)
            sent = now()
            if modelled:
                line.free_at = max(sent, line.free_at) + payload.size / link.bandwidth
                payload.ready = line.free_at + link.latency
            if strict:
                line.unsettled += 1
            put(payload)
            return sent

        return send

    def inlet(self, channel: Channel) -> Receive:
        """What takes the next message of ``channel``."""
        line = self._lines[channel]
        modelled, take = self._modelled, self._taker(line.messages)
        strict = self.outstanding is not None and not self._batched
        packs = self._links.of(channel.source, channel.destination).compression is not None
        if not (modelled or strict or packs):
            return take

        def receive() -> Payload | None:
            payload: Payload | None = take()
            if payload is None:
                return None
            if strict:
                line.tokens.put(True)
            if modelled:
                sleep_until(payload.ready, self.check)
            return payload.unpack() if packs else payload

        return receive

    def posting(self, channel: Channel) -> Post | None:
        """Where sends are batched: let the sender of the next message go on."""
        tokens = self._lines[channel].tokens
        return partial(tokens.put, True) if self._batched else None

    def settling(self, channel: Channel) -> Settle | None:
        """Wait until few enough messages of ``channel`` are outstanding."""
        outstanding, line = self.outstanding, self._lines[channel]
        if outstanding is None:
            return None
        take = self._taker(line.tokens)

        def settle() -> bool:
            while line.unsettled > outstanding:
                if take() is None:
                    return False
                line.unsettled -= 1
            return True

        return settle

    def _taker(self, queue: SimpleQueue[Any]) -> Callable[[], Any]:
        """What takes out of ``queue``, and waits for it; where devices take turns it gives None if nothing is there."""
        get, empty, turns = queue.get, queue.empty, self._turns

        def take() -> Any:
            if turns and empty():
                return None
            found = get()
            if found is None:
                queue.put(None)
                raise Aborted
            return found

        return take

    def abort(self) -> None:
        """Wake everyone who waits, now and later, with Aborted."""
        self.stopped = True
        for line in self._lines.values():
            line.messages.put(None)
            line.tokens.put(None)

    interrupt = abort

    def close(self) -> None:
        """Nothing to let go of."""

    def check(self) -> None:
        """Raise Aborted if another device has failed."""
        if self.stopped:
            raise Aborted
