"""What timelines know of memory, as one kind of curve per device."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Container, Sequence
from dataclasses import dataclass
from operator import itemgetter

from pipelab.schedules.action import BACKWARD_OPS, actions_of
from pipelab.timeline import Timeline
from pipelab.timeline.versions import versions_of

__all__ = ["Held", "Share", "held", "kept_versions", "shares"]

Steps = tuple[tuple[float, float], ...]
_BYTES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))
_ROUND = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)


@dataclass(frozen=True)
class Held:
    """What devices hold over time: ``steps[r]`` are (time, what device r holds from then on), ``peaks[r]`` its most.

    ``name`` is what is counted, ``meaning`` says it in full, ``axis`` is short. ``unit`` and ``factor`` turn a value
    into what is shown; ``top`` is where the scale ends that all devices share, as it is shown.
    """

    name: str
    meaning: str
    axis: str
    unit: str
    factor: float
    top: float
    steps: tuple[Steps, ...]
    peaks: tuple[float, ...]

    def words(self, value: float) -> str:
        """A value with its unit, where it has one: 76.3 MB, 4."""
        shown = value * self.factor
        digits = f"{shown:.3g}" if self.unit and abs(shown) < 1000 else f"{shown:.4g}"
        return f"{digits} {self.unit}".strip()


def held(timelines: Sequence[Timeline]) -> list[Held]:
    """One kind of curve on one scale for all: activation bytes where all timelines know them, else what is in flight.

    That is counted in sequences where all know their batch, else in micro-batches.
    """
    if all(timeline.holdings for timeline in timelines):
        return _bytes(timelines)
    known = all(timeline.sequences is not None for timeline in timelines)
    counted, column = ("sequences", 2) if known else ("micro-batches", 1)
    peaks = [timeline.peak_sequences if known else timeline.peak_microbatches for timeline in timelines]
    top = max((peak for row in peaks for peak in row), default=0.0) or 1.0
    last = "the last of B or W" if any("W" in timeline.schedule.ops for timeline in timelines) else "B"
    shares = ", in full device shares" if any(timeline.schedule.chunks > 1 for timeline in timelines) else ""
    name, when = f"{counted} in flight", f"from F to {last}{shares}"
    if (words := timelines[0].words).stages:
        counted, now = words.held
        name, when = f"{counted} {now}", "from the start of their job until their last taker has ended"
    return [
        _in_flight(timeline, name, f"{name}, {when}", counted, column, row, top)
        for timeline, row in zip(timelines, peaks, strict=True)
    ]


def _in_flight(
    timeline: Timeline, name: str, meaning: str, axis: str, column: int, peaks: tuple[float, ...], top: float
) -> Held:
    devices = range(timeline.schedule.devices)
    steps = tuple(tuple((step[0], step[column]) for step in timeline.in_flight(device)) for device in devices)
    return Held(name, meaning, axis, "", 1.0, top, steps, peaks)


def kept_versions(timelines: Sequence[Timeline]) -> list[Held | None]:
    """How many versions of the weights each device keeps, on one scale; None where weights do not change on the way."""
    found = [versions_of(timeline) for timeline in timelines]
    top = max((peak for one in found if one is not None for peak in one.peaks), default=1)
    return [
        None
        if one is None
        else Held(
            name="weight versions",
            meaning="versions of the weights that the device keeps",
            axis="versions",
            unit="",
            factor=1.0,
            top=float(top),
            steps=one.steps,
            peaks=tuple(map(float, one.peaks)),
        )
        for one in found
    ]


def _bytes(timelines: Sequence[Timeline]) -> list[Held]:
    highest = max(max(timeline.peak_bytes) for timeline in timelines)
    unit, size = next(((name, size) for name, size in _BYTES if highest >= size), _BYTES[-1])
    curves = []
    for timeline in timelines:
        known = {holding.device: holding for holding in timeline.holdings}
        found = [known.get(device) for device in range(timeline.schedule.devices)]
        curves.append(
            Held(
                name="activation bytes",
                meaning="activation bytes held",
                axis=f"{unit} held",
                unit=unit,
                factor=1 / size,
                top=_round_up(highest / size),
                steps=tuple(() if holding is None else holding.steps for holding in found),
                peaks=tuple(0.0 if holding is None else holding.peak for holding in found),
            )
        )
    return curves


def _round_up(value: float) -> float:
    """The next number that reads well on a scale: 76.3 gives 80."""
    if value <= 0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(value))
    return next((step * size for step in _ROUND if step * size >= value * (1 - 1e-9)), 10 * size)


@dataclass(frozen=True)
class Share:
    """What one micro-batch adds to a curve on a device and stage: ``steps`` as in ``Held``, 0 once it is let go."""

    device: int
    stage: int
    microbatch: int
    steps: Steps


def shares(timeline: Timeline, curve: Held) -> tuple[Share, ...]:
    """The curve of ``timeline``, taken apart by micro-batches: what each slot left on its device or let go of.

    What is there only while a slot runs belongs to no micro-batch. In a flow another device may let go of it: there
    the curve is not taken apart.
    """
    if timeline.words.stages:
        return ()
    found: dict[tuple[int, int, int], list[tuple[float, float]]] = {}
    for device in range(timeline.schedule.devices):
        row = timeline.on_device(device)
        last = {(a.stage, a.microbatch): span for span in row for a in actions_of(span.slot) if a.op in BACKWARD_OPS}
        backwards = row if curve.name == "activation bytes" else ()  # the other curve only falls where one is over
        over = {span.end for span in backwards if any(a.op in BACKWARD_OPS for a in actions_of(span.slot))}
        for span in row:
            mine = {(device, a.stage, a.microbatch): a.op for a in actions_of(span.slot)}
            ending = [key for key in mine if last.get(key[1:]) is span]
            before, after = (_between(curve.steps[device], t, over) for t in (span.start, span.end))
            change = after - before
            change += sum(found[key][-1][1] for key in ending if key in found)
            staying = [key for key in mine if key not in ending]
            for key in staying:
                held_before = found[key][-1][1] if key in found else 0.0
                at = span.start if mine[key] in "FR" else span.end
                found.setdefault(key, []).append((at, max(held_before + change / len(staying), 0.0)))
            for key in ending:
                found.setdefault(key, []).append((span.end, 0.0))
    return tuple(Share(*key, tuple(steps)) for key, steps in found.items() if any(value > 0 for _, value in steps))


def _between(steps: Steps, time: float, over: Container[float]) -> float:
    """What is held at ``time`` between two slots: what ended there is gone, what begins there has not come.

    Where a backward is ``over``, an I may have left more than there was before.
    """
    first = bisect_left(steps, time, key=itemgetter(0))
    here = itertools.takewhile(lambda step: step[0] == time, itertools.islice(steps, first, None))
    values = [value for _, value in here]
    if not values or time not in over:
        values.append(steps[first - 1][1] if first else 0.0)
    return min(values)
