"""The wire between processes, for one step.

Within a host a message says itself what it looks like (see ``local``). Through a group of two it is its tensors, one
after the other, and nothing else: what shape they have is said once per edge and size of micro-batch; then receives are
posted ahead of need, one message a channel, so that tensors travel while the device computes. The receiver takes its
order from the sender's program.
"""

from __future__ import annotations

import math
import os
import pickle
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pipelab.errors import ConfigurationError
from pipelab.runtime.device.channels import Aborted, Receive, Send
from pipelab.runtime.device.clocks import sleep_until
from pipelab.runtime.device.payload import Payload, describe
from pipelab.runtime.processes.wires.lines import FOREVER, GroupLine, Lines, as_bytes
from pipelab.runtime.processes.wires.local import Layout, LocalLine
from pipelab.schedules.action import Action
from pipelab.schedules.wire import Channel, Route
from pipelab.simulation.links import Links

__all__ = ["GroupWire"]

_AT_ONCE = 1e-4
"""A receive that takes no longer (seconds) has found its message there."""


class GroupWire:
    """One rank's ends of all channels, for one step. ``sizes`` are those of the micro-batches.

    Shapes are remembered per ``signature``, which all ranks share: what shapes may depend on besides the sizes.
    ``links`` (seconds, bytes per second) delay delivery, to let a slow link be felt, and pack messages.
    """

    def __init__(
        self,
        lines: Lines,
        messages: Mapping[Channel, Sequence[Route]],
        place: torch.device,
        sizes: Sequence[int],
        signature: Any,
        links: Links,
    ) -> None:
        self._lines, self._place = lines, place
        self._modelled = links.take_time
        self._link = {channel: links.of(channel.source, channel.destination) for channel in messages}
        self._free_at = dict.fromkeys(messages, 0.0)
        self.stopped, self._reason = False, ""
        self._messages = messages
        self._ends: dict[Channel, LocalLine | _Posted] = {}
        for tag, channel in enumerate(sorted(messages)):
            if lines.rank not in (channel.source, channel.destination):
                continue
            line = lines[channel]
            if isinstance(line, GroupLine):
                looks = _Looks(lines.meta, channel, tag, lines.shapes.setdefault(signature, {}), sizes)
                coming = [route.producer for route in messages[channel] if lines.rank == channel.destination]
                self._ends[channel] = _Posted(line, looks, coming, self._modelled)
            else:
                self._ends[channel] = line

    # ---- what a worker asks for ----------------------------------------------------------------------------------

    def outlet(self, channel: Channel) -> Send:
        """What starts sending a copy, and comes back at once."""
        going = iter(self._messages[channel])
        return lambda payload: self._send(channel, next(going).producer, payload)

    def inlet(self, channel: Channel) -> Receive:
        """What waits for the next message of ``channel``."""
        return partial(self._receive, channel)

    def posting(self, channel: Channel) -> None:
        """Sends are never waited for."""

    def settling(self, channel: Channel) -> None:
        """Sends are never waited for."""

    def _send(self, channel: Channel, producer: Action, payload: Payload) -> float:
        tensors = payload.tensors
        for tensor in tensors:
            if tensor.layout != torch.strided:
                raise ConfigurationError(f"stage {producer.stage} sends a sparse tensor; only dense ones can be sent")
        compression = self._link[channel].compression
        if compression is not None:
            payload = payload.pack(compression)
            tensors = payload.tensors
        layout = Layout.of(tensors, payload.single, payload.takes_gradient, payload.packed)
        sent = time.perf_counter()
        stamp = math.nan
        if self._modelled:
            link = self._link[channel]
            self._free_at[channel] = max(sent, self._free_at[channel]) + payload.size / link.bandwidth
            stamp = self._free_at[channel] + link.latency
        try:
            self._ends[channel].send(layout, tensors, stamp, producer)
        except (OSError, RuntimeError, KeyError, AttributeError) as error:
            raise self._broken(error) from None
        return sent

    def _receive(self, channel: Channel) -> Payload:
        asked = time.perf_counter()
        try:
            layout, tensors, stamp = self._ends[channel].receive()
        except (OSError, RuntimeError, KeyError, AttributeError) as error:
            raise self._broken(error) from None
        self.check()
        taken = time.perf_counter()
        ready = taken if taken - asked > _AT_ONCE else math.nan  # when one came that lay there no one knows
        if self._modelled:
            ready = stamp
            sleep_until(ready, self.check)
        if self._place.type != "cpu" or self._modelled:
            tensors = [tensor.to(self._place) for tensor in tensors]
        return Payload(tuple(tensors), layout.single, layout.takes_gradient, ready, layout.packed).unpack()

    def check(self) -> None:
        """Raise Aborted if this step is to stop."""
        if self.stopped:
            raise Aborted(self._reason)

    # ---- what its owner asks for ---------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Let this rank's device stop at its next slot; the others follow."""
        self._stop("interrupted")

    def abort(self) -> None:
        """Drop the lines: whoever waits at their other ends stops."""
        self._stop("another device failed")
        self._ends = {}
        self._lines.fail()

    def close(self) -> None:
        """The step is over."""
        self._ends = {}
        self._lines.sweep()

    # ---- underneath ----------------------------------------------------------------------------------------------

    def _broken(self, error: BaseException) -> Aborted:
        self._stop(f"the connection broke: {str(error).splitlines()[0]}")
        return Aborted(self._reason)

    def _stop(self, reason: str) -> None:
        self._reason, self.stopped = self._reason or reason, True


class _Looks:
    """What messages of one channel look like, by stage, op and size of micro-batch: said once, then known."""

    def __init__(self, meta: Any, channel: Channel, tag: int, known: dict[Any, Layout], sizes: Sequence[int]) -> None:
        self._meta, self._channel, self._tag, self._known, self._sizes = meta, channel, tag, known, sizes
        self._notes: list[Any] = []

    def say(self, producer: Action, layout: Layout) -> None:
        """Tell the other end, the first time. Raises ConfigurationError if it was something else before."""
        known = self._known.setdefault(self._key(producer), layout)
        if known is layout:
            data = torch.frombuffer(bytearray(pickle.dumps(layout)), dtype=torch.uint8)
            for tensor in (torch.tensor([len(data)], device="cpu"), data):
                self._notes.append((self._meta.send([tensor], self._channel.destination, self._tag), tensor))
        elif known != layout:
            raise ConfigurationError(
                f"stage {producer.stage} sends {_described(layout)} for micro-batch {producer.microbatch}, and sent "
                f"{_described(known)} for one of the same size: between hosts shapes may depend on sizes only; use "
                "launch='threads'"
            )

    def knows(self, producer: Action) -> bool:
        """Whether it has been said."""
        return self._key(producer) in self._known

    def hear(self, producer: Action) -> Layout:
        """What the message from ``producer`` looks like."""
        key = self._key(producer)
        if key not in self._known:
            size = torch.zeros(1, dtype=torch.int64, device="cpu")
            self._hear_into(size)
            data = torch.empty(int(size), dtype=torch.uint8, device="cpu")
            self._hear_into(data)
            self._known[key] = pickle.loads(data.numpy().tobytes())
        return self._known[key]

    def _hear_into(self, tensor: Tensor) -> None:
        work = self._meta.recv([tensor], self._channel.source, self._tag)
        try:
            work.wait(FOREVER)
        finally:
            del work

    def _key(self, producer: Action) -> tuple[Any, ...]:
        return (self._channel, producer.stage, producer.op, self._sizes[producer.microbatch])


class _Posted:
    """A channel through a group of two: receives are posted ahead, as soon as it is known what is ``coming``."""

    def __init__(self, line: GroupLine, looks: _Looks, coming: Iterable[Action], stamped: bool) -> None:
        self._line, self._looks, self._coming, self._stamped = line, looks, deque(coming), stamped
        self._posted: deque[tuple[Layout, list[Tensor], Tensor | None, list[Any]]] = deque()
        # With one hardware queue, a receive posted ahead would hold up the work that the sender waits for.
        self._ahead = not (line.place.type == "cuda" and os.environ.get("CUDA_DEVICE_MAX_CONNECTIONS") == "1")
        self._post_ahead()

    def send(self, layout: Layout, tensors: Sequence[Tensor], stamp: float, producer: Action) -> None:
        """Start sending a copy."""
        self._looks.say(producer, layout)
        place = self._line.place
        copies = [as_bytes(tensor, place) for tensor in tensors if tensor.numel()]
        if not copies:  # there is nothing in it, and it is waited for all the same
            copies = [torch.zeros(1, dtype=torch.uint8, device=place)]
        if self._stamped:
            copies.append(as_bytes(torch.tensor([stamp], dtype=torch.float64, device="cpu"), place))
        self._line.send(copies)

    def receive(self) -> tuple[Layout, list[Tensor], float]:
        """(layout, tensors, time stamp) of the next message."""
        if not self._posted:
            self._post()
        layout, tensors, stamp, works = self._posted.popleft()
        try:
            self._line.wait(works)
        finally:
            del works  # or a traceback would keep the line open
        self._post_ahead()
        return layout, tensors, math.nan if stamp is None else float(stamp)

    def _post_ahead(self) -> None:
        if self._ahead and self._coming and self._looks.knows(self._coming[0]):
            self._post()

    def _post(self) -> None:
        layout, place = self._looks.hear(self._coming.popleft()), self._line.place
        tensors = [torch.empty(shape, dtype=dtype, device=place) for shape, dtype in layout.tensors]
        stamp = torch.empty(1, dtype=torch.float64, device=place) if self._stamped else None
        whole = [*tensors, stamp] if stamp is not None else tensors
        room = [t.view(-1).view(torch.uint8) for t in whole if t.numel()]
        if not any(t.numel() for t in tensors):
            room.insert(0, torch.empty(1, dtype=torch.uint8, device=place))
        self._posted.append((layout, tensors, stamp, self._line.post(room)))


def _described(layout: Layout) -> str:
    return describe([torch.empty(shape, dtype=dtype, device="meta") for shape, dtype in layout.tensors])
