"""Each message of a step, from what its two ends have noted down; and what packing them has saved."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipelab.quantities import format_bytes
from pipelab.runtime.device.log import DeviceLog
from pipelab.runtime.device.program import compile_table
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.wire import Channel, Route
from pipelab.timeline import Message

__all__ = ["Compression", "Delivery", "Reduction", "compression", "deliveries", "sums"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message that was really used: host times at which it was sent, there (a modelled link takes time), taken."""

    channel: Channel
    route: Route
    sent: float
    ready: float
    taken: float
    size: int
    saved: int
    """How many more bytes it would have been without compression (see ``Link``)."""


def deliveries(schedule: Schedule, logs: Sequence[DeviceLog]) -> Iterator[Delivery]:
    """Every message, from what its two ends have noted down."""
    for passage in compile_table(schedule).passages:
        sender, receiver, k = logs[passage.channel.source], logs[passage.channel.destination], passage.taken
        sent, ready = sender.sent[passage.sent], receiver.ready[k]
        ready = sent if math.isnan(ready) else ready  # it was there when it was asked for
        taken, size, saved = receiver.taken[k], receiver.sizes[k], receiver.saved[k]
        yield Delivery(passage.channel, passage.route, sent, ready, taken, size, saved)


@dataclass(frozen=True)
class Compression:
    """Bytes of all messages of a step: ``before`` they were packed (see ``Link``), and ``after``."""

    before: int
    after: int

    @property
    def saving(self) -> float:
        """The part of the bytes that did not travel."""
        return 1 - self.after / self.before

    def __str__(self) -> str:
        after, before = format_bytes(self.after), format_bytes(self.before)
        return f"{after} of messages a step instead of {before}, {self.saving:.0%} less"


def compression(logs: Sequence[DeviceLog]) -> Compression | None:
    """What packing has saved; None if nothing was packed."""
    after, saved = sum(sum(log.sizes) for log in logs), sum(sum(log.saved) for log in logs)
    return Compression(after + saved, after) if saved else None


@dataclass(frozen=True, slots=True)
class Reduction:
    """Gradients of one stage on their way, to be summed over the replicas: host times (seconds) and bytes."""

    stage: int
    device: int
    size: int
    begun: float
    ended: float

    def later(self, seconds: float) -> Reduction:
        """The same on another clock."""
        return replace(self, begun=self.begun + seconds, ended=self.ended + seconds)


def sums(schedule: Schedule, reductions: Sequence[Reduction], origin: float) -> tuple[Message, ...]:
    """For a timeline that begins at ``origin``: each sum, after the last backward of its stage."""
    ends = {action.stage: action for _, _, action in schedule.actions() if action.op in "BIW"}
    return tuple(
        Message("sum of gradients", ends[s.stage], ends[s.stage], s.device, s.device, *times, float(s.size))
        for s in reductions
        for times in [(s.begun - origin, s.ended - origin)]
    )
