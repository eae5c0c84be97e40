"""Two timelines laid over each other: a prediction and a measurement, say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from pipelab.errors import ConfigurationError
from pipelab.schedules.action import actions_of
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
        """Per op, the median over its slots of (duration in the second / duration in the first)."""
        before = {(s.device, s.slot): s.duration for s in self.first.spans}
        ratios: dict[str, list[float]] = {}
        for span in self.second.spans:
            given = before.get((span.device, span.slot))
            if given:
                op = "+".join(action.op for action in actions_of(span.slot))
                ratios.setdefault(op, []).append(span.duration / given)
        return {op: median(values) for op, values in sorted(ratios.items())}

    def table(self) -> str:
        """The two side by side, as text."""
        rows: list[tuple[str, str, str]] = [
            ("", self.first.clock, self.second.clock),
            (
                "makespan",
                f"{self.first.makespan:.4g} {self.first.unit}",
                f"{self.second.makespan:.4g} {self.second.unit}",
            ),
            ("bubble fraction", f"{self.first.bubble_fraction:.1%}", f"{self.second.bubble_fraction:.1%}"),
            ("utilisation", f"{self.first.utilisation:.1%}", f"{self.second.utilisation:.1%}"),
            ("peak micro-batches", _row(self.first.peak_microbatches), _row(self.second.peak_microbatches)),
            ("messages", str(self.first.message_count), str(self.second.message_count)),
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return "\n".join(f"{label:<{widths[0]}}  {a:>{widths[1]}}  {b:>{widths[2]}}".rstrip() for label, a, b in rows)


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
