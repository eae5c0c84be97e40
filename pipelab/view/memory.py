"""What a timeline knows of memory, as one kind of curve per device."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelab.timeline import Timeline

__all__ = ["Held", "held"]

Steps = tuple[tuple[float, float], ...]
_BYTES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))
_ROUND = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)


@dataclass(frozen=True)
class Held:
    """What devices hold over time: ``steps[r]`` are (time, what device r holds from then on), ``peaks[r]`` its most.

    ``name`` is what is counted, ``axis`` its short form beside a strip, ``unit`` and ``factor`` turn a value into
    what is shown, ``top`` is the end of the scale that all devices share, in shown units.
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


def held(timeline: Timeline) -> Held:
    """Activation bytes where they are known, else sequences in flight, else micro-batches in flight."""
    devices = range(timeline.schedule.devices)
    if timeline.holdings:
        by_device = {holding.device: holding.steps for holding in timeline.holdings}
        highest = max(timeline.peak_bytes, default=0.0)
        unit, size = next(((name, size) for name, size in _BYTES if highest >= size), _BYTES[-1])
        return Held(
            "activation bytes",
            "activation bytes held",
            f"{unit} held",
            unit,
            1 / size,
            _round_up(highest / size),
            tuple(by_device.get(device, ()) for device in devices),
            timeline.peak_bytes,
        )
    flights = [timeline.in_flight(device) for device in devices]
    counted = "sequences" if timeline.sequences is not None else "micro-batches"
    column = 2 if timeline.sequences is not None else 1
    peaks = timeline.peak_sequences if timeline.sequences is not None else timeline.peak_microbatches
    share = "" if timeline.schedule.share == 1 else ", in full device shares"
    return Held(
        f"{counted} in flight",
        f"{counted} in flight, from F to the last of B or W{share}",
        counted,
        "",
        1.0,
        _round_up(max(peaks, default=0.0)),
        tuple(tuple((step[0], step[column]) for step in flight) for flight in flights),
        peaks,
    )


def _round_up(value: float) -> float:
    """The next number that reads well on a scale: 76.3 gives 80."""
    if value <= 0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(value))
    return next((step * size for step in _ROUND if step * size >= value * (1 - 1e-9)), 10 * size)
