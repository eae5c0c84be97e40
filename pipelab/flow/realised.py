"""A run of a flow, predicted or measured: who ran what and when, as a schedule and a timeline of pipelab."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pipelab.flow.plan import Plan
from pipelab.flow.words import FlowWords
from pipelab.schedules.action import Action, actions_of
from pipelab.schedules.dependencies import ACTIVATION, SPACE, TURN, Edge, Place, SlotGraph
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.table import Array, Table
from pipelab.timeline import Span, Timeline

__all__ = ["FlowSchedule", "Realised"]


@dataclass(frozen=True)
class Realised:
    """``begun``: (worker, job) in the order in which jobs began; job j ran from ``start[j]`` to ``end[j]``.

    ``freed[s]``: the jobs whose end made room for a result of stage s, in order. Item i came at i * ``every``.
    """

    plan: Plan
    begun: Sequence[tuple[int, int]]
    freed: Sequence[Sequence[int]]
    start: Sequence[float]
    end: Sequence[float]
    every: float = 0.0

    @cached_property
    def done(self) -> tuple[float, ...]:
        """When the last job that works for an item has ended, item by item."""
        found = [0.0] * self.plan.items
        for (low, high), end in zip(self.plan.span, self.end, strict=True):
            for item in range(low, high):
                found[item] = max(found[item], end)
        return tuple(found)

    def timeline(self, name: str, *, clock: str, unit: str = "s", note: str = "") -> Timeline:
        """It as a Timeline: a device is a worker, a micro-batch the index of a job."""
        plan = self.plan
        rows: list[list[int]] = [[] for _ in plan.layout.rows]
        for worker, job in self.begun:
            rows[worker].append(job)
        programs = tuple(tuple(Action(plan.stage[job], "F", plan.index[job]) for job in row) for row in rows)
        placement = tuple(plan.layout.workers(r) for r in plan.layout.on)
        schedule = FlowSchedule(name, programs, placement, (1.0,) * max(plan.counts), realised=self)
        spans = tuple(
            Span(worker, position, slot, self.start[job], self.end[job])
            for worker, row in enumerate(rows)
            for position, (job, slot) in enumerate(zip(row, programs[worker], strict=True))
        )
        return Timeline(schedule, spans, clock=clock, unit=unit, note=note)


@dataclass(frozen=True)
class FlowSchedule(Schedule):
    """The order in which the workers of a flow ran its jobs. A stage is one of the flow, a micro-batch a job of it."""

    realised: Realised = field(kw_only=True, compare=False, repr=False)

    @cached_property
    def graph(self) -> SlotGraph:
        """Who waits for whom: for results, for room, for its turn."""
        return FlowGraph(self)

    @cached_property
    def words(self) -> FlowWords:
        """What its things are called."""
        return FlowWords(self.realised.plan, self.realised.every)

    @property
    def share(self) -> float:
        """A result is one, whichever worker made it."""
        return 1.0

    def lives(self, table: Table) -> tuple[Array, Array]:
        """Of each job, the one whose end lets its result go: the last to take it, or itself where nobody does."""
        plan, end = self.realised.plan, self.realised.end
        jobs = np.array(plan.first)[table.stage] + table.microbatch
        where = np.empty(len(plan), np.int64)
        where[jobs] = np.arange(len(jobs))
        last = [max(plan.takers[job], key=end.__getitem__, default=job) for job in jobs.tolist()]
        return np.arange(len(jobs)), where[last]

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "realised": self.realised}


class FlowGraph(SlotGraph):
    """The needs of a flow's jobs. One that waits for room waits for the end of the job that made it."""

    def __init__(self, schedule: FlowSchedule) -> None:
        super().__init__(schedule.programs, schedule.placement)
        self._realised = schedule.realised

    def _resolve(self, device: int, position: int) -> Iterator[Edge]:
        plan = self._realised.plan
        (action,) = actions_of(self.programs[device][position] or ())
        job, place = plan.job(action.stage, action.microbatch), Place(device, position)
        for other in plan.needs[job]:
            yield self._edge(action, place, ACTIVATION, other)
        room = plan.buffers[action.stage]
        if room is not None and plan.place[job] >= room:
            yield self._edge(action, place, SPACE, self._realised.freed[action.stage][plan.place[job] - room])
        if job in self._turns:
            yield self._edge(action, place, TURN, self._turns[job])

    def _edge(self, action: Action, place: Place, kind: str, other: int) -> Edge:
        plan = self._realised.plan
        supplier = Action(plan.stage[other], "F", plan.index[other])
        return Edge(action, place, kind, supplier, self.places[supplier][0])

    @cached_property
    def _turns(self) -> dict[int, int]:
        """In ordered stages: by job, the last to end of all that jobs before it needed."""
        plan, found = self._realised.plan, {}
        for s, stage in enumerate(plan.layout.stages):
            last: int | None = None
            for job in range(plan.first[s], plan.first[s] + plan.counts[s]) if stage.ordered else ():
                if last is not None and last not in plan.needs[job]:
                    found[job] = last
                before = (*plan.needs[job], *([] if last is None else [last]))
                last = max(before, key=self._realised.end.__getitem__, default=None)
        return found
