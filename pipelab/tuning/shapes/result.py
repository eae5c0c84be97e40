"""What the planner found: the best shapes, their times and bytes, and why their neighbours lose."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pipelab.quantities import format_bytes, format_time, render_table
from pipelab.tuning.shapes.cost import StepTime, assumptions, step_time
from pipelab.tuning.shapes.memory import ShapeMemory, memory_of
from pipelab.tuning.shapes.shape import Job, Shape

__all__ = ["ParallelismPlan", "PlannedShape"]


@dataclass(frozen=True, repr=False)
class PlannedShape:
    """A shape with what it would take: ``time`` of a step in seconds, ``memory`` of its fullest device in bytes."""

    job: Job = field(repr=False)
    shape: Shape
    memory: ShapeMemory
    time: StepTime

    @classmethod
    def of(cls, job: Job, shape: Shape) -> PlannedShape:
        """Priced."""
        return cls(job, shape, memory_of(job, shape), step_time(job, shape))

    def __repr__(self) -> str:
        return f"PlannedShape({self.shape}: {format_time(self.time.total, 's')} a step)"

    @property
    def tokens_per_second(self) -> float:
        """Of the whole cluster."""
        return self.job.batch * self.job.model.tokens / self.time.total

    @property
    def utilisation(self) -> float:
        """Model FLOP/s utilisation: operations that the model needs, over what the peak allows in this time."""
        possible = self.job.cluster.devices * self.job.cluster.peak * self.time.total
        return self.job.batch * self.job.model.step_operations / possible

    @property
    def hardware_utilisation(self) -> float:
        """The same with operations that are computed again, which arXiv 2104.04473 counts."""
        model, again = self.job.model, {"none": 0.0, "selective": 0.0, "full": 0.0}
        again |= {"selective": model.score_operations, "full": model.layer_operations}
        more = model.tokens * model.layers * again[self.shape.recompute]
        return self.utilisation * (1 + more / model.step_operations)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "shape": asdict(self.shape),
            "seconds": self.time.total,
            "tokens_per_second": self.tokens_per_second,
            "utilisation": self.utilisation,
            "hardware_utilisation": self.hardware_utilisation,
            "bubble_fraction": self.time.bubble_fraction,
            "time": self.time.parts,
            "memory": self.memory.parts,
            "fullest_device": self.memory.device,
        }


@dataclass(frozen=True, repr=False)
class ParallelismPlan:
    """The ``best`` shapes, quickest first: one for each dp, pp and tp.

    ``considered`` shapes can be, and ``fitting`` of them fit into memory. ``neighbours`` of the best one each come with
    what changes, and why that loses.
    """

    job: Job
    best: tuple[PlannedShape, ...]
    considered: int
    fitting: int
    neighbours: tuple[tuple[str, str], ...]

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the cost model takes for granted."""
        return assumptions(self.job)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "model": asdict(self.job.model),
            "parameters": self.job.model.parameters,
            "devices": self.job.cluster.devices,
            "allowed_bytes": self.job.cluster.allowed,
            "batch": self.job.batch,
            "considered": self.considered,
            "fitting": self.fitting,
            "best": [one.to_json() for one in self.best],
            "neighbours": dict(self.neighbours),
            "assumptions": self.assumptions,
        }

    def __repr__(self) -> str:
        return f"ParallelismPlan({self.fitting} of {self.considered} shapes fit; best: {self.best[0].shape})"

    def __str__(self) -> str:
        job, best = self.job, self.best[0]
        header = [
            "dp",
            "pp",
            "tp",
            "b",
            "m",
            "v",
            "recompute",
            "sharding",
            "step",
            "tokens/s",
            "MFU",
            "bubble",
            "memory",
        ]
        rows = [[*_row(one)] for one in self.best]
        times = ", ".join(f"{name} {format_time(part, 's')}" for name, part in best.time.parts.items() if part)
        return "\n".join(
            [
                f"{job.model.parameters / 1e9:.4g} billion parameters, {job.batch} sequences of {job.model.tokens} "
                f"tokens a step, {job.cluster.devices} devices with {format_bytes(job.cluster.allowed)} each to plan",
                f"{self.fitting} of {self.considered} shapes fit; the best, one for each dp, pp and tp:",
                "",
                render_table(header, rows),
                "",
                f"the best one's step    {times}",
                f"its fullest device     {best.memory}",
                "",
                "why its neighbours lose:",
                *(f"  {change}: {why}" for change, why in self.neighbours),
                "",
                "the cost model is arithmetic; nothing here was run:",
                *(f"  {sentence}" for sentence in self.assumptions),
            ]
        )


def _row(one: PlannedShape) -> tuple[str, ...]:
    shape = one.shape
    numbers = (shape.dp, shape.pp, shape.tp, shape.microbatch, shape.microbatches, shape.chunks)
    return (
        *map(str, numbers),
        shape.recompute,
        shape.sharding,
        format_time(one.time.total, "s"),
        f"{one.tokens_per_second:,.0f}",
        f"{one.utilisation:.1%}",
        f"{one.time.bubble_fraction:.1%}",
        format_bytes(one.memory.total),
    )
