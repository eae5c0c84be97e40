"""Two timelines laid over each other: a prediction and a measurement, say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from pipelab.errors import ConfigurationError
from pipelab.timeline.timeline import Timeline

__all__ = ["Comparison", "compare"]


@dataclass(frozen=True)
class Comparison:
    """``second`` laid over ``first`` (say, measured over predicted)."""

    first: Timeline
    second: Timeline

    @property
    def makespan_ratio(self) -> float:
        """Makespan of the second over that of the first."""
        return self.second.makespan / self.first.makespan if self.first.makespan else float("nan")

    @property
    def bubble_difference(self) -> float:
        """Bubble fraction of the second minus that of the first."""
        return self.second.bubble_fraction - self.first.bubble_fraction

    @cached_property
    def same_order(self) -> bool:
        """Whether every device ran the same slots in the same order in both."""
        devices = range(max(self.first.schedule.devices, self.second.schedule.devices))
        if self.first.schedule.devices != self.second.schedule.devices:
            return False
        return all(
            [s.slot for s in self.first.on_device(r)] == [s.slot for s in self.second.on_device(r)] for r in devices
        )

    @cached_property
    def duration_ratios(self) -> dict[str, float]:
        """Per op (in a flow per stage), the median over its slots of duration in the second / duration in the first."""
        before = {(s.device, s.slot): s.duration for s in self.first.spans}
        ratios: dict[str, list[float]] = {}
        for span in self.second.spans:
            given = before.get((span.device, span.slot))
            if given:
                group = self.second.words.group(span.slot)
                ratios.setdefault(group, []).append(span.duration / given)
        return {op: median(values) for op, values in sorted(ratios.items())}

    def table(self) -> str:
        """The two side by side, and how far the second is from the first, as text.

        A makespan differs by a part of the first one's, in per cent. What is a fraction already differs by percentage
        points. In different units, makespans cannot be told apart.
        """
        a, b = self.first, self.second
        longer = f"{self.makespan_ratio - 1:+z.1%}" if a.unit == b.unit else ""
        more = 100 * self.bubble_difference
        rows: list[tuple[str, ...]] = [
            ("", a.clock, b.clock, "difference"),
            ("makespan", f"{a.makespan:.4g} {a.unit}", f"{b.makespan:.4g} {b.unit}", longer),
            ("bubble fraction", f"{a.bubble_fraction:.1%}", f"{b.bubble_fraction:.1%}", f"{more:+z.1f} points"),
            ("utilisation", f"{a.utilisation:.1%}", f"{b.utilisation:.1%}", f"{-more:+z.1f} points"),
            (f"peak {a.words.held[0]}", _row(a.peak_microbatches), _row(b.peak_microbatches), ""),
            ("messages", str(a.message_count), str(b.message_count), ""),
        ]
        label, *widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        aligned = [[f"{cell:>{width}}" for cell, width in zip(row[1:], widths, strict=True)] for row in rows]
        lines = [f"{row[0]:<{label}}  {'  '.join(cells)}" for row, cells in zip(rows, aligned, strict=True)]
        return "\n".join(line.rstrip() for line in lines)


def compare(first: Timeline, second: Timeline) -> Comparison:
    """Lay two timelines over each other. Raises ConfigurationError if they have different numbers of devices."""
    if first.schedule.devices != second.schedule.devices:
        raise ConfigurationError(
            f"timelines of {first.schedule.devices} and {second.schedule.devices} devices cannot be laid over each "
            "other; build both schedules with the same p"
        )
    return Comparison(first, second)


def _row(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)
