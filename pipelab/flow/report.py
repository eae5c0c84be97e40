"""What a run of a flow has shown: results, timelines, costs, throughput, latency, the bottleneck and why."""

from __future__ import annotations

import html
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import Any

from pipelab.flow.costs import FlowCosts, Measured
from pipelab.flow.predict import predict
from pipelab.flow.realised import Realised
from pipelab.quantities import format_time, render_table
from pipelab.timeline import Timeline

__all__ = ["FlowReport"]


@dataclass(frozen=True)
class FlowReport:
    """Of one run. ``clock`` is that of ``timeline`` and of all figures; ``wall`` is what happened on this machine."""

    name: str
    realised: Realised = field(repr=False)
    measured: tuple[Measured, ...] = field(repr=False)
    made: dict[int, Any] = field(repr=False)
    clock: str = "wall"
    note: str = ""

    @cached_property
    def results(self) -> Any:
        """Of the last stage, in the order of its jobs; by name where several stages are last."""
        plan = self.realised.plan
        found = {
            plan.layout.stages[s].name: [self.made[plan.job(s, i)] for i in range(plan.counts[s])] for s in plan.sinks
        }
        return found if len(found) > 1 else next(iter(found.values()))

    @cached_property
    def wall(self) -> Timeline:
        """What happened on this machine."""
        return self.realised.timeline(self.name, clock="wall", note=self.note)

    @cached_property
    def timeline(self) -> Timeline:
        """The timeline that ``clock`` tells."""
        if self.clock == "wall":
            return self.wall
        return self._told.timeline(self.name, clock="device", note=self.note)

    @cached_property
    def _told(self) -> Realised:
        if self.clock == "wall":
            return self.realised
        return predict(self.realised.plan, self._lasted, self.realised.every)

    @cached_property
    def _lasted(self) -> list[float]:
        """What each job cost; on a disk or a link how long it held that at least."""
        plan, found = self.realised.plan, [0.0] * len(self.realised.plan)
        for one in self.measured:
            found[one.job] = max(one.seconds, plan.layout.resources[plan.resource(one.job)].least(one.size))
        return found

    @cached_property
    def costs(self) -> FlowCosts:
        """What jobs cost in this run: medians by stage and kind."""
        return FlowCosts.medians(self.realised.plan, list(self.measured))

    @property
    def serial_time(self) -> float:
        """What the same jobs take one after another."""
        return sum(self._lasted)

    @property
    def makespan(self) -> float:
        """From the first start to the last end."""
        return self.timeline.makespan

    @property
    def throughput(self) -> float:
        """Items a second: all of them, over the makespan."""
        return self.realised.plan.items / self.makespan if self.makespan else 0.0

    def latency(self, item: int) -> float:
        """Seconds from when an item was there until the last job that works for it has ended."""
        return self.latencies[item]

    @cached_property
    def latencies(self) -> tuple[float, ...]:
        """The latency of each item."""
        told = self._told
        return tuple(done - item * told.every for item, done in enumerate(told.done))

    @cached_property
    def utilisation(self) -> dict[str, float]:
        """By resource, the fraction of its workers' time that is work."""
        layout, busy, long = self.realised.plan.layout, self.timeline.busy, self.makespan
        return {
            resource.name: sum(busy[row] for row in layout.workers(r)) / (resource.workers * long) if long else 0.0
            for r, resource in enumerate(layout.resources)
        }

    @property
    def bottleneck(self) -> str:
        """The resource that works most of the time."""
        return max(self.utilisation, key=self.utilisation.__getitem__)

    def explain(self) -> str:
        """In sentences: the bottleneck, and for what each resource waits."""
        layout, share = self.realised.plan.layout, self.utilisation
        first = self.bottleneck
        told = [
            f"{first} is the bottleneck: it works {share[first]:.1%} of the time. "
            f"{self.throughput:.4g} items/s came out, and it allows {self.throughput / share[first]:.4g} at most."
            if share[first]
            else "No resource has done any work."
        ]
        for r, resource in enumerate(layout.resources):
            waits: dict[str, float] = {}
            for row in layout.workers(r):
                for gap in self.timeline.gaps(row):
                    stage = "" if gap.blocker is None else layout.stages[gap.blocker.stage].name
                    cause = gap.cause if gap.cause in _WHY else "wait"
                    why = _WHY[cause if stage or cause in ("drain", "source") else "nobody"].format(stage)
                    waits[why] = waits.get(why, 0.0) + gap.end - gap.start
            listed = sorted(waits.items(), key=lambda pair: -pair[1])
            idle = ", ".join(f"{format_time(time, self.timeline.unit)} {why}" for why, time in listed if time > 0)
            told.append(f"{resource.name} idles: {idle}." if idle else f"{resource.name} never idles.")
        return "\n".join(told)

    def __str__(self) -> str:
        layout, unit = self.realised.plan.layout, self.timeline.unit
        rows = [
            (name, str(resource.workers), f"{share:.1%}")
            for resource, (name, share) in zip(layout.resources, self.utilisation.items(), strict=True)
        ]
        head = (
            f"{self.name}: {self.realised.plan.items} items in {format_time(self.makespan, unit)}, "
            f"{self.throughput:.4g} items/s; one after another {format_time(self.serial_time, unit)}; "
            f"latency {format_time(median(self.latencies), unit)} (median)"
        )
        return f"{head}\nClock: {self.timeline.clock_name}\n{render_table(('resource', 'workers', 'works'), rows)}"

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        from pipelab.view import plot_timeline

        shown: dict[str, str] = plot_timeline(self.timeline)._repr_mimebundle_()
        shown["text/html"] = f"<pre>{html.escape(str(self))}</pre>{shown['text/html']}"
        shown["text/plain"] = str(self)
        return {kind: one for kind, one in shown.items() if kind in set(include or shown) - set(exclude or ())}


_WHY = {
    "fill": "until the first results of {} come",
    "source": "for items to come",
    "drain": "after its last job",
    "space": "for lack of room, until {} ends",
    "wait": "for {}",
    "nobody": "though it had all it needed: the machine was busy elsewhere",
}
