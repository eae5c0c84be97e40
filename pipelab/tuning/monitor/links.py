"""How fast links are, from the messages of a step that was run under the wall clock.

Only a message whose receiver was already waiting when it was sent shows the link itself: it is taken as soon as it is
there. The others lie and wait for their receiver. Where there are fewer cores than devices, waking the receiver is part
of what is measured.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from statistics import median

from pipelab.runtime.messages import Delivery
from pipelab.runtime.report import StepReport
from pipelab.schedules.schedule import Schedule
from pipelab.tuning.lines import Line, fit_line

__all__ = ["Link", "line_of", "measure_links"]

_Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Link:
    """Messages from device ``source`` to ``destination``, both activations and gradients."""

    source: int
    destination: int
    messages: int
    """All of the step."""
    waited_for: int
    """Those of them whose receiver was waiting."""
    bytes: float
    """Of a message that was waited for, the median."""
    seconds: float | None
    """From sending to taking it, the median; None if no message was waited for."""
    line: Line | None
    """t = alpha + beta * bytes, where messages of two sizes were waited for: latency, and 1 / bandwidth."""

    @property
    def bandwidth(self) -> float | None:
        """Achieved bytes per second, latency included."""
        return self.bytes / self.seconds if self.seconds else None


def measure_links(report: StepReport) -> tuple[Link, ...]:
    """All links of a step; nothing under a clock that is not "wall": there devices take turns, and that is measured."""
    if report.clock != "wall" or not report.past:
        return ()
    found: defaultdict[tuple[int, int], list[Delivery]] = defaultdict(list)
    for delivery in report.deliveries:
        found[delivery.channel.source, delivery.channel.destination].append(delivery)
    waits = _waited_for(report)
    ends = sorted({*found, *_neighbours(report.schedule)})  # a part of an endless table may not use all of them
    return tuple(_link(a, b, found[a, b], [waits[id(d)] for d in found[a, b] if id(d) in waits]) for a, b in ends)


def _neighbours(schedule: Schedule) -> Iterable[tuple[int, int]]:
    """Devices with stages that follow one another, both ways."""
    for homes, others in pairwise(schedule.placement):
        for a, b in zip(homes, others, strict=True):
            if a != b:
                yield from ((a, b), (b, a))


def line_of(report: StepReport) -> Line | None:
    """One line for all links of a step; None if no message was waited for."""
    points = [*_waited_for(report).values()]
    return _line(points) or (Line(median(t for _, t in points), 0.0) if points else None)


def _waited_for(report: StepReport) -> dict[int, tuple[float, float]]:
    """(bytes, seconds) of deliveries whose receiver had nothing else to do when they were sent, by their ids."""
    ends = [log.readings.host_end for log in report.logs]
    found, before = {}, [-inf] * len(ends)
    for d in report.deliveries:
        r = d.channel.destination
        over = bisect_right(ends[r], d.taken)
        asked = max(ends[r][over - 1] if over else -inf, before[r])
        before[r] = d.taken
        if -inf < asked <= d.sent:  # before its first action it may not have been started yet
            found[id(d)] = float(d.size), max(d.taken - d.sent, 0.0)
    return found


def _link(source: int, destination: int, deliveries: Sequence[Delivery], points: _Points) -> Link:
    size = median([b for b, _ in points] or [d.size for d in deliveries] or [0])
    seconds = median(t for _, t in points) if points else None
    return Link(source, destination, len(deliveries), len(points), float(size), seconds, _line(points))


def _line(points: Iterable[tuple[float, float]]) -> Line | None:
    """Through the medians of each size; None without two sizes."""
    sizes: defaultdict[float, list[float]] = defaultdict(list)
    for size, seconds in points:
        sizes[size].append(seconds)
    return fit_line((size, median(times)) for size, times in sizes.items()) if len(sizes) > 1 else None
