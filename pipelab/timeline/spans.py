"""What a timeline is made of: slots, messages, idle time and held bytes, each with its times."""

from __future__ import annotations

from dataclasses import dataclass

from pipelab.schedules.action import Action, Slot

__all__ = ["Gap", "Holding", "Message", "Span"]


@dataclass(frozen=True, slots=True)
class Span:
    """One slot of one device, from ``start`` to ``end`` (in the timeline's unit)."""

    device: int
    position: int
    slot: Slot
    start: float
    end: float

    @property
    def duration(self) -> float:
        """How long it ran."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Message:
    """What ``producer`` sent to ``consumer`` on another device: ``kind`` is "activation" or "gradient"."""

    kind: str
    producer: Action
    consumer: Action
    source: int
    destination: int
    sent: float
    arrived: float
    size: float = 0.0
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Idle time of a device and why.

    ``cause`` is "fill", "wait", "link", "update" or "drain"; in a flow also "space" (no room for a result) and "source"
    (an item had not come yet). ``blocker`` (of ``blocker_device``) is what it waited for.
    """

    device: int
    start: float
    end: float
    cause: str
    blocker: Action | None
    blocker_device: int | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Holding:
    """Activation bytes of one device over time: steps of (time, bytes held from then on)."""

    device: int
    steps: tuple[tuple[float, float], ...]

    @property
    def peak(self) -> float:
        """The most that was held at any time."""
        return max((held for _, held in self.steps), default=0.0)
