"""What a learner holds, as a table."""

from __future__ import annotations

from typing import Any

from pipelab.errors import ConfigurationError
from pipelab.schedules.schedule import Schedule, TimeTable

__all__ = ["as_table"]


def as_table(
    schedule: object, devices: int | None = None, microbatches: int | None = None, *, name: str = "yours"
) -> Schedule | TimeTable:
    """A learner's schedule as a table: a Schedule, a TimeTable, CSV text, rows of actions, or a generator.

    A generator is a function of (devices, microbatches) that returns rows, one per device; it needs both numbers.
    Raises ConfigurationError or ScheduleParseError, which say what is expected.
    """
    if isinstance(schedule, Schedule | TimeTable):
        return schedule
    if isinstance(schedule, str):
        return Schedule.from_csv(schedule, name=name)
    if callable(schedule):
        called = getattr(schedule, "__name__", "your function")
        if devices is None or microbatches is None:
            raise ConfigurationError(f"{called} needs p and m; add, for example, devices=4, microbatches=8")
        rows: Any = schedule(devices, microbatches)
        if rows is None:
            raise ConfigurationError(f"{called}({devices}, {microbatches}) returned None; it must return the rows")
        return as_table(rows, name=called)
    rows = schedule
    return Schedule.from_rows(rows, name=name)
