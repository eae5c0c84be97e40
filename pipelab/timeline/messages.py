"""Messages under way: how much of their time is hidden behind work, and lanes to show them in."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipelab.schedules.reserved import reservable
from pipelab.schedules.schedule import Schedule
from pipelab.timeline.spans import Message, Span

__all__ = ["Lane", "Overlap", "lanes", "sent_on", "tracks"]


@dataclass(frozen=True)
class Overlap:
    """Time that messages are under way, from sent to arrived, and the part of it that is hidden.

    A message's time is hidden while the receiving device is at work: while one of its slots or updates runs.
    ``links`` has (time under way, hidden time) by (source, destination); two messages that are under way at once count
    twice.
    """

    links: Mapping[tuple[int, int], tuple[float, float]]
    times: tuple[tuple[float, float], ...] = ()
    """The same for each message, in their order."""

    @classmethod
    @reservable
    def of(cls, messages: Iterable[Message], work: Iterable[Span]) -> Overlap:
        """That of messages between devices that did this ``work``."""
        rows: dict[int, list[Span]] = {}
        for span in sorted(work, key=lambda span: span.start):
            rows.setdefault(span.device, []).append(span)
        done = {r: list(itertools.accumulate((s.duration for s in row), initial=0.0)) for r, row in rows.items()}

        def worked(device: int, time: float) -> float:
            """How long the device has worked until then."""
            row = rows.get(device, [])
            k = bisect_right(row, time, key=lambda span: span.start)
            return done[device][k] - max(row[k - 1].end - time, 0.0) if k else 0.0

        links: dict[tuple[int, int], tuple[float, float]] = {}
        times = []
        for m in messages:
            way, hidden = links.get((m.source, m.destination), (0.0, 0.0))
            here = worked(m.destination, m.arrived) - worked(m.destination, m.sent)
            times.append((m.arrived - m.sent, here))
            links[m.source, m.destination] = (way + m.arrived - m.sent, hidden + here)
        return cls(dict(sorted(links.items())), tuple(times))

    @property
    def fraction(self) -> float:
        """Hidden time over time under way, of all messages; 1 where none takes any time."""
        return _fraction(self.links.values())

    @property
    def fractions(self) -> dict[tuple[int, int], float]:
        """The same for each (source, destination)."""
        return {pair: _fraction([times]) for pair, times in self.links.items()}


def _fraction(times: Iterable[tuple[float, float]]) -> float:
    way, hidden = map(sum, zip(*times, strict=True)) if (times := list(times)) else (0.0, 0.0)
    return hidden / way if way else 1.0


@dataclass(frozen=True)
class Lane:
    """What a device sends, or receives: ``rows`` of messages, none of which is under way with another of its row."""

    device: int
    name: str
    """ "sends" or "receives"."""
    rows: tuple[tuple[Message, ...], ...]


def lanes(messages: Sequence[Message], devices: int) -> list[Lane]:
    """Two lanes for each device, in as many rows as messages are under way at once; those that take no time are out."""
    found = []
    timed = sorted((m for m in messages if m.arrived > m.sent), key=lambda m: (m.sent, m.arrived))
    for device in range(devices):
        for name, end in (("sends", "source"), ("receives", "destination")):
            rows: list[list[Message]] = []
            for message in timed:
                if getattr(message, end) == device:
                    free = next((row for row in rows if row[-1].arrived <= message.sent + 1e-12), None)
                    if free is None:
                        rows.append(free := [])
                    free.append(message)
            found.append(Lane(device, name, tuple(map(tuple, rows))))
    return found


def tracks(messages: Sequence[Message], devices: int) -> Iterator[tuple[int, Lane, Message]]:
    """Each message of each lane as (number of its row, from 1, over all lanes; lane; message)."""
    rows = ((lane, row) for lane in lanes(messages, devices) for row in lane.rows)
    return ((k, lane, message) for k, (lane, row) in enumerate(rows, 1) for message in row)


def sent_on(schedule: Schedule) -> int:
    """How many messages a part of an endless table sends, also those that a later part takes."""
    last, home = schedule.stages - 1, schedule.placement
    onward = [(a.stage, a.stage + (1 if a.op == "F" else -1)) for *_, a in schedule.actions() if a.op in "FBI"]
    return sum(0 <= b <= last and home[a] != home[b] for a, b in onward)
