"""Who does the work of each worker: this process, or one of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipelab.flow.costs import Measured
from pipelab.flow.plan import Plan
from pipelab.flow.realised import Realised
from pipelab.flow.run import Hand, Running, call

__all__ = ["run"]


def run(
    plan: Plan, items: Sequence[Any], launch: str, every: float, *, progress: bool
) -> tuple[Realised, list[Measured], dict[int, Any]]:
    """(what happened, what jobs cost, the results of the last stages by job)."""
    hands = [_here(plan, row) for row in range(len(plan.layout.rows))]
    running = Running(plan, items, hands, every)
    return running.go(progress=progress), running.measured, running.results


def _here(plan: Plan, row: int) -> Hand:
    layout = plan.layout
    resource = layout.rows[row][0]
    number = row - layout.workers(resource)[0]

    def hand(stage: int, given: list[Any]) -> tuple[Any, float]:
        return call(layout.stages[stage], layout.resources[resource], number, given)

    return hand
