"""The wire between processes, for one step.

A message is its tensors, one after the other, and nothing else. What shape they have is said once per edge and size of
micro-batch; then receives are posted ahead of need, one message a channel, so that tensors travel while the device
computes. The receiver takes its order from the sender's program.
"""

from __future__ import annotations

import math
import os
import pickle
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pipelab.errors import ConfigurationError
from pipelab.runtime.device.channels import Aborted
from pipelab.runtime.device.payload import Payload, describe
from pipelab.runtime.processes.lines import FOREVER, Lines
from pipelab.schedules.wire import Channel, Route

__all__ = ["GroupWire", "as_bytes"]

_AT_ONCE = 1e-4
"""A receive that takes no longer (seconds) has found its message there."""


@dataclass(frozen=True)
class _Layout:
    """What a message looks like."""

    tensors: tuple[tuple[tuple[int, ...], torch.dtype], ...]
    single: bool
    takes_gradient: tuple[bool, ...]

    @classmethod
    def of(cls, payload: Payload) -> _Layout:
        """What ``payload`` looks like."""
        return cls(tuple((tuple(t.shape), t.dtype) for t in payload.tensors), payload.single, payload.takes_gradient)

    def __str__(self) -> str:
        return describe([torch.empty(shape, dtype=dtype, device="meta") for shape, dtype in self.tensors])


@dataclass
class _Incoming:
    """A channel's receiving end: what is still to come, and what has been posted."""

    routes: deque[Route]
    posted: deque[tuple[Route, _Layout, list[Tensor], Tensor | None, list[Any]]] = field(default_factory=deque)


class GroupWire:
    """One rank's ends of all channels, for one step. ``sizes`` are those of the micro-batches.

    Shapes are remembered per ``signature``, which all ranks share: what shapes may depend on besides the sizes.
    ``latency`` and ``bandwidth`` (seconds, bytes per second) delay delivery, to let a slow link be felt.
    """

    def __init__(
        self,
        lines: Lines,
        messages: Mapping[Channel, Sequence[Route]],
        place: torch.device,
        sizes: Sequence[int],
        signature: Any,
        latency: float,
        bandwidth: float,
    ) -> None:
        self._lines, self._place, self._sizes = lines, place, sizes
        self._shapes: dict[Any, _Layout] = lines.shapes.setdefault(signature, {})
        self._tags = {channel: number for number, channel in enumerate(sorted(messages))}
        self._latency, self._bandwidth = latency, bandwidth
        self._modelled = latency > 0 or bandwidth < float("inf")
        self._free_at = dict.fromkeys(messages, 0.0)
        self._stopped: str | None = None
        self._notes: list[Any] = []
        # With one hardware queue, a receive posted ahead would hold up the work that the sender waits for.
        one_queue = lines.place.type == "cuda" and os.environ.get("CUDA_DEVICE_MAX_CONNECTIONS") == "1"
        self._ahead = 0 if one_queue else 1
        self._incoming = {
            channel: _Incoming(deque(routed))
            for channel, routed in messages.items()
            if channel.destination == lines.rank
        }
        for channel in self._incoming:
            self._post_ahead(channel)

    # ---- what a worker asks for ----------------------------------------------------------------------------------

    def send(self, channel: Channel, payload: Payload) -> float:
        """Start sending a copy; comes back at once, with the time of sending."""
        if any(tensor.layout != torch.strided for tensor in payload.tensors):
            raise ConfigurationError(
                f"stage {payload.producer.stage} sends a sparse tensor; only dense ones can be sent"
            )
        layout = _Layout.of(payload)
        key = self._key(channel, payload.producer)
        known = self._shapes.setdefault(key, layout)
        if known is layout:
            self._tell(channel, layout)
        elif known != layout:
            raise ConfigurationError(
                f"stage {payload.producer.stage} sends {layout} for micro-batch {payload.producer.microbatch}, and "
                f"sent {known} for one of the same size: between processes shapes may depend on sizes only; use "
                "launch='threads'"
            )
        copies = [as_bytes(tensor, self._lines.place) for tensor in payload.tensors if tensor.numel()]
        if not copies:  # there is nothing in it, and it is waited for all the same
            copies = [torch.zeros(1, dtype=torch.uint8, device=self._lines.place)]
        sent = time.perf_counter()
        if self._modelled:
            self._free_at[channel] = max(sent, self._free_at[channel]) + payload.size / self._bandwidth
            stamp = torch.tensor([self._free_at[channel] + self._latency], dtype=torch.float64, device="cpu")
            copies.append(as_bytes(stamp, self._lines.place))
        try:
            self._lines[channel].send(copies)
        except (RuntimeError, KeyError, AttributeError) as error:
            raise self._broken(error) from None
        return sent

    def settle(self, channels: Iterable[Channel]) -> None:
        """Sends are never waited for."""

    def receive(self, channel: Channel) -> Payload:
        """The next message of the channel, in the order of sending; waits for it."""
        incoming = self._incoming[channel]
        try:
            if not incoming.posted:
                self._post(channel)
            route, layout, tensors, stamp, works = incoming.posted.popleft()
            asked = time.perf_counter()
            self._lines[channel].wait(works)
        except (RuntimeError, KeyError, AttributeError) as error:
            works = incoming = None  # type: ignore[assignment] # or the traceback would keep the line open
            raise self._broken(error) from None
        self.check()
        self._post_ahead(channel)
        arrived = time.perf_counter()
        ready = arrived if arrived - asked > _AT_ONCE else math.nan  # when one came that lay there no one knows
        if stamp is not None:
            ready = float(stamp)
            self._sleep_until(ready)
        payload = Payload(
            tuple(tensor.to(self._place) for tensor in tensors), layout.single, layout.takes_gradient, route.producer
        )
        payload.ready, payload.taken = ready, time.perf_counter()
        return payload

    def check(self) -> None:
        """Raise Aborted if this step is to stop."""
        if self._stopped is not None:
            raise Aborted(self._stopped)

    # ---- what its owner asks for ---------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Let this rank's device stop at its next slot; the others follow."""
        self._stopped = self._stopped or "interrupted"

    def abort(self) -> None:
        """Drop the lines: whoever waits at their other ends stops."""
        self._stopped = self._stopped or "another device failed"
        self._incoming = {}
        self._notes = []
        self._lines.fail()

    def close(self) -> None:
        """The step is over."""
        self._notes = []
        self._lines.sweep()

    # ---- underneath ----------------------------------------------------------------------------------------------

    def _key(self, channel: Channel, producer: Any) -> tuple[Any, ...]:
        return (channel, producer.stage, producer.op, self._sizes[producer.microbatch])

    def _post_ahead(self, channel: Channel) -> None:
        """Post the next receive, if its shape is known."""
        incoming = self._incoming[channel]
        wanted = incoming.routes and len(incoming.posted) < self._ahead
        if wanted and self._key(channel, incoming.routes[0].producer) in self._shapes:
            self._post(channel)

    def _post(self, channel: Channel) -> None:
        incoming = self._incoming[channel]
        route = incoming.routes.popleft()
        key = self._key(channel, route.producer)
        if key not in self._shapes:
            self._shapes[key] = self._hear(channel)
        layout, place = self._shapes[key], self._lines.place
        tensors = [torch.empty(shape, dtype=dtype, device=place) for shape, dtype in layout.tensors]
        stamp = torch.empty(1, dtype=torch.float64, device=place) if self._modelled else None
        whole = [*tensors, stamp] if stamp is not None else tensors
        room = [t.view(-1).view(torch.uint8) for t in whole if t.numel()]
        if not any(t.numel() for t in tensors):
            room.insert(0, torch.empty(1, dtype=torch.uint8, device=place))
        works = self._lines[channel].post(room)
        incoming.posted.append((route, layout, tensors, stamp, works))

    def _tell(self, channel: Channel, layout: _Layout) -> None:
        """Say what messages of this edge look like."""
        data = torch.frombuffer(bytearray(pickle.dumps(layout)), dtype=torch.uint8)
        for tensor in (torch.tensor([len(data)], device="cpu"), data):
            work = self._lines.meta.send([tensor], channel.destination, self._tags[channel])
            self._notes.append((work, tensor))

    def _hear(self, channel: Channel) -> _Layout:
        size = torch.zeros(1, dtype=torch.int64, device="cpu")
        self._hear_into(channel, size)
        data = torch.empty(int(size), dtype=torch.uint8, device="cpu")
        self._hear_into(channel, data)
        layout: _Layout = pickle.loads(data.numpy().tobytes())
        return layout

    def _hear_into(self, channel: Channel, tensor: Tensor) -> None:
        work = self._lines.meta.recv([tensor], channel.source, self._tags[channel])
        try:
            work.wait(FOREVER)
        finally:
            del work

    def _sleep_until(self, ready: float) -> None:
        while (left := ready - time.perf_counter()) > 0:
            time.sleep(min(left, 0.05))
            self.check()

    def _broken(self, error: BaseException) -> Aborted:
        self._stopped = self._stopped or f"the connection broke: {str(error).splitlines()[0]}"
        return Aborted(self._stopped)


def as_bytes(tensor: Tensor, place: torch.device) -> Tensor:
    """A contiguous copy, seen as bytes: backends need not know its dtype."""
    copied = torch.empty(tensor.shape, dtype=tensor.dtype, device=place)
    copied.copy_(tensor.detach())
    return copied.view(-1).view(torch.uint8)
