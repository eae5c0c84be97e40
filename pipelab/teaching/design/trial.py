"""Your own schedule in one call: it is checked, then the worked example really trains with it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch

from pipelab.errors import ConfigurationError
from pipelab.models import TransformerLM, next_byte_loss, text_batch
from pipelab.runtime import Pipeline, gradient_error, unsplit_gradients
from pipelab.schedules.action import Slot
from pipelab.schedules.checker import Violation, check_schedule
from pipelab.schedules.schedule import Schedule, TimeTable
from pipelab.simulation.costs import Costs
from pipelab.teaching.design.paper import shown
from pipelab.teaching.design.tables import as_table
from pipelab.timeline import Timeline
from pipelab.view.picture import Picture
from pipelab.view.table import places_of, plot_table
from pipelab.view.timeline import plot_timeline

__all__ = ["Trial", "try_schedule"]

EXACT = 1e-9  # float64: the true error is around 1e-15, a wrong gradient is off by far more


@dataclass(frozen=True)
class Trial:
    """The result of trying a schedule. A notebook shows it in words and as a picture.

    If the checker refused, ``violations`` says why, and nothing was run. Otherwise ``losses`` are those of the training
    steps. ``gradient_error`` is the largest error against the unsplit model, in float64. ``timeline`` is that of the
    first step.
    """

    table: Schedule | TimeTable
    violations: tuple[Violation, ...] = ()
    losses: tuple[float, ...] = ()
    gradient_error: float | None = None
    timeline: Timeline | None = None
    peak_activation_bytes: tuple[int, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether the checker found nothing."""
        return not self.violations

    @property
    def order(self) -> tuple[tuple[Slot, ...], ...]:
        """What each device runs, in order."""
        return (self.table.schedule() if isinstance(self.table, TimeTable) else self.table).programs

    @property
    def right(self) -> bool:
        """Whether it trained, with the unsplit model's gradients."""
        return self.gradient_error is not None and self.gradient_error < EXACT

    def __str__(self) -> str:
        if self.violations or self.timeline is None or self.gradient_error is None:
            told = [f"  {violation}" for violation in self.violations[:5]]
            rest = len(self.violations) - len(told)
            told += [f"  ... and {rest} more"] if rest else []
            return "\n".join(["The checker refuses this schedule, so nothing was run:", *told])
        proof = "equal to those of the unsplit model" if self.right else "NOT equal to those of the unsplit model"
        held = ", ".join(f"{peak:g}" for peak in self.timeline.peak_microbatches)
        losses = " -> ".join(f"{loss:.3f}" for loss in self.losses)
        return "\n".join(
            [
                f"The schedule is sound. The model trained with it: loss {losses}.",
                f"Its gradients are {proof}: largest error {self.gradient_error:.1e} in float64.",
                f"{self.timeline.makespan:g} {self.timeline.unit}, {self.timeline.bubble_fraction:.1%} idle; "
                f"micro-batches in flight on each device: {held}.",
            ]
        )

    def picture(self) -> Picture:
        """The timeline of the first step; for a refused schedule the table, with the errors framed."""
        if self.timeline is not None:
            return plot_timeline(self.timeline, phases=False)
        marked = places_of(self.table, self.violations)
        return plot_table(self.table, marked=marked, note="Framed: actions that the checker refuses." if marked else "")

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        return shown(str(self), self.picture(), include, exclude)


def try_schedule(
    schedule: object,
    devices: int | None = None,
    microbatches: int | None = None,
    *,
    steps: int = 2,
    batch: int | None = None,
    model: Callable[[], torch.nn.Module] = TransformerLM,
    clock: str = "unit",
    costs: Costs | None = None,
    progress: Callable[[str], None] | None = None,
) -> Trial:
    """Check a schedule and, if it is sound, really train the 48-layer model with it, in one call.

    ``schedule`` is a Schedule, a TimeTable, CSV text, rows of actions, or a generator. One step in float64 compares the
    gradients with those of the unsplit model. Then the model trains for ``steps`` steps of ``batch`` sequences
    (default: 64, or the next number above it that makes micro-batches of one size). The timeline is read from
    ``clock``; ``costs`` are for the unit clock. ``progress`` is called with a few words before each of the ``steps`` +
    1 pieces of work. A schedule that the checker refuses is not run, and the Trial says why. Raises ConfigurationError
    for an argument that is not a schedule.

    >>> try_schedule([["0F0", "0F1", "0B0", "0B1"], ["1F0", "1B0", "1F1", "1B1"]]).right
    True
    """
    table = as_table(schedule, devices, microbatches)
    violations = check_schedule(table)
    if violations:
        return Trial(table, tuple(violations))
    order = table.schedule(name="yours") if isinstance(table, TimeTable) else table
    if "U" in order.ops:
        raise ConfigurationError(
            "try_schedule compares with the unsplit model's gradients, and this table lists updates (U): leave them "
            "out, or train with it by Pipeline(..., optimizer=...)"
        )
    if batch is None:
        batch = -(-64 // order.microbatches) * order.microbatches
    tell = progress or (lambda words: None)
    tell("comparing its gradients with those of the unsplit model")
    exact = model().double()
    true = unsplit_gradients(exact, next_byte_loss, *text_batch(0, batch))
    with Pipeline(exact, order, loss=next_byte_loss, measure_memory=False) as pipeline:
        pipeline.step(*text_batch(0, batch))
        error = gradient_error(pipeline.gradients(), true.gradients)
    with Pipeline(
        model(),
        order,
        loss=next_byte_loss,
        clock=clock,
        costs=costs,
        optimizer=lambda named: torch.optim.AdamW([p for _, p in named], lr=3e-3),
    ) as pipeline:
        reports = []
        for step in range(steps):
            tell(f"step {step + 1} of {steps}")
            reports.append(pipeline.step(*text_batch(step, batch)))
    losses = tuple(float(report.loss or 0.0) for report in reports)
    first = reports[0]
    return Trial(table, (), losses, error, first.timeline, tuple(first.peak_activation_bytes))
