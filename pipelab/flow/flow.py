"""A flow: declared once, then predicted, really run and measured."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any, SupportsIndex

from pipelab.errors import ConfigurationError
from pipelab.flow.costs import FlowCosts
from pipelab.flow.declare import Stage
from pipelab.flow.dispatch import require_room
from pipelab.flow.layout import Layout
from pipelab.flow.plan import Plan
from pipelab.flow.predict import predict
from pipelab.flow.report import FlowReport
from pipelab.timeline import Timeline

__all__ = ["Flow"]


class Flow:
    """Stages, in the order in which items go through them. Raises ConfigurationError for what cannot be.

    >>> core = Resource("core", workers=2)
    >>> flow = Flow(Stage("sort", sorted, core), Stage("pack", zlib.compress, core), name="example")
    >>> plot_timeline(flow.run(items).timeline)
    """

    def __init__(self, *stages: Stage, name: str = "flow") -> None:
        self.name, self.stages = name, stages
        self._layout = Layout.of(stages)

    def __repr__(self) -> str:
        return f"Flow({', '.join(stage.name for stage in self.stages)}, name={self.name!r})"

    def profile(self, items: Iterable[Any], *, progress: bool = True) -> FlowCosts:
        """What jobs cost: each is run alone, one after another, in this thread. Medians by stage and kind.

        A core is measured by the CPU time of its thread, all else by the clock on the wall. What a job waits for, or
        how long a disk is held, is not part of it. Raises FlowError for a job that fails.
        """
        from pipelab.flow.run import measure  # with torch, which a prediction does without

        given = _listed(items)
        plan = self._plan(len(given))
        return FlowCosts.medians(plan, measure(plan, given, progress=progress))

    def predict(
        self, items: Iterable[Any] | SupportsIndex, costs: FlowCosts | Mapping[Any, float], *, every: float = 0.0
    ) -> Timeline:
        """When it would run. ``items`` or their number; ``costs`` as profiled, or seconds by stage: {"map": 0.01}.

        All items are there at the start, or (``every``) item i comes i * ``every`` seconds later. Raises
        ConfigurationError for a flow that would stand still, and for costs that are missing.
        """
        plan = self._plan(operator.index(items) if isinstance(items, SupportsIndex) else len(list(items)))
        known = FlowCosts.of(costs)
        found = predict(plan, known.of_jobs(plan), _interval(every))
        return found.timeline(self.name, clock="predicted", unit=known.unit, note=self._note)

    def run(
        self,
        items: Iterable[Any],
        *,
        launch: str = "threads",
        clock: str = "wall",
        every: float = 0.0,
        progress: bool = True,
    ) -> FlowReport:
        """Run it on ``items``, a worker in a thread of its own.

        All items are there at the start, or (``every``) item i comes i * ``every`` seconds later. ``launch``:
        "processes" gives each worker that is a core a process; functions, items and results travel.
        ``clock``: "wall" is what happened on this machine. "device" composes what each job cost, by the clock of its
        resource, as if each worker had a core of its own.

        Raises ConfigurationError before anything starts, and FlowError for a job that fails; nothing is left running.
        """
        if launch not in ("threads", "processes"):
            raise ConfigurationError(f"launch must be 'threads' or 'processes', got {launch!r}")
        if clock not in ("wall", "device"):
            raise ConfigurationError(f"clock must be 'wall' or 'device', got {clock!r}")
        from pipelab.flow.launch import run

        given = _listed(items)
        plan, interval = self._plan(len(given)), _interval(every)
        realised, measured, results = run(plan, given, launch, interval, progress=progress)
        return FlowReport(self.name, realised, tuple(measured), results, clock, self._note)

    def _plan(self, items: int) -> Plan:
        plan = Plan(self._layout, items)
        require_room(plan)
        return plan

    @property
    def _note(self) -> str:
        """What the clock's name does not say: who is held, and who is played."""
        held = [resource.note for resource in self._layout.resources if resource.held]
        gpus = [resource for resource in self._layout.resources if resource.kind == "gpu"]
        if gpus:
            from pipelab.flow.run import played

            held += [f"a thread plays {resource.name}" for resource in gpus if played(resource)]
        return ", ".join(held)


def _listed(items: Iterable[Any]) -> list[Any]:
    if not isinstance(items, Iterable):
        raise ConfigurationError(f"items must be a list of what the first stage takes, got {items!r}; try range(4)")
    return list(items)


def _interval(every: object) -> float:
    if isinstance(every, bool) or not isinstance(every, int | float) or not 0 <= every < math.inf:
        raise ConfigurationError(f"every must be seconds between two items, from 0 on, got {every!r}; try 0.01")
    return float(every)
