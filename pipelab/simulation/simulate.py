"""An event-driven simulation of a schedule, linear in its number of actions.

A slot starts when its device is free and everything that it needs has arrived::

    start(slot) = max(end of the slot before it on its device, arrival of each message it needs)
    arrival     = when the channel is free after sending + bytes / bandwidth + latency
"""

from __future__ import annotations

from collections.abc import Iterable

from pipelab.errors import ConfigurationError, whole_number
from pipelab.schedules.reserved import reservable
from pipelab.schedules.schedule import Schedule
from pipelab.simulation.costs import CostModel, Costs
from pipelab.timeline import Timeline

__all__ = ["peak_activation_bytes", "simulate", "sweep"]

_TEXTBOOK = Costs(forward=1.0, backward=1.0)


@reservable
def simulate(
    schedule: Schedule,
    costs: CostModel = _TEXTBOOK,
    *,
    batch: int | None = None,
    clock: str = "predicted",
    check: bool = True,
) -> Timeline:
    """Predict when each slot of ``schedule`` runs, given what things cost (default: tF = tB = 1).

    ``batch`` is the number of sequences in the whole batch: with it, micro-batches get the weights that it gives them
    and what is in flight is also counted in sequences. Raises ScheduleError with the checker's violations if the
    schedule is not sound; with ``check=False`` only once it gets stuck.

    >>> simulate(build_schedule("1f1b", devices=4, microbatches=4), Costs(forward=1, backward=1)).makespan
    14.0
    """
    (timeline,) = sweep(schedule, [costs], batch=batch, clock=clock, check=check)
    return timeline


def sweep(
    schedule: Schedule,
    costs: Iterable[CostModel],
    *,
    batch: int | None = None,
    clock: str = "predicted",
    check: bool = True,
) -> tuple[Timeline, ...]:
    """:func:`simulate` under each of ``costs``, in one go: what the table alone decides is worked out once.

    >>> slow = sweep(build_schedule("1f1b", 4, 4), [Costs(latency=latency) for latency in (0, 1, 2)])
    >>> [timeline.makespan for timeline in slow]
    [14.0, 24.0, 34.0]
    """
    if not isinstance(schedule, Schedule):
        hint = "build one with build_schedule('1f1b', devices=4, microbatches=4)"
        raise ConfigurationError(f"simulate takes a Schedule, got {type(schedule).__name__}; {hint}")
    given = tuple(costs)
    for one in given:
        if not hasattr(one, "slot_cost"):
            raise ConfigurationError(f"costs must be Costs, got {type(one).__name__}; try Costs(forward=1, backward=2)")
    if batch is not None:
        batch = whole_number("batch", "", batch)
        schedule = schedule.for_batch(batch)
    from pipelab.simulation.predict import predict  # with numpy, which whoever predicts nothing does without

    sequences = None if batch is None else batch / sum(schedule.weights)
    return predict(schedule, given, sequences=sequences, clock=clock, check=check)


def peak_activation_bytes(
    schedule: Schedule, costs: CostModel = _TEXTBOOK, *, batch: int | None = None
) -> tuple[float, ...]:
    """The most activation bytes held on each device; empty where ``costs`` do not know them.

    A device's own order decides what it holds, whatever its actions cost. So nothing is simulated, and the schedule
    need not be sound. For a sound one ``simulate(...).peak_bytes`` says the same.
    """
    if batch is not None:
        schedule = schedule.for_batch(whole_number("batch", "", batch))
    from pipelab.simulation.predict import peaks

    return peaks(schedule, costs)
