"""What a step returns, and how one comes from the workers' logs."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from torch import Tensor

from pipelab.errors import PipelabError
from pipelab.runtime.worker import DeviceLog
from pipelab.schedules.action import Action
from pipelab.schedules.schedule import Schedule
from pipelab.simulation.costs import Costs, SlotCosts
from pipelab.simulation.simulate import simulate
from pipelab.timeline import Holding, Message, Span, Timeline

__all__ = ["CostHistory", "StepReport", "build_report"]


@dataclass(frozen=True)
class StepReport:
    """One step, run for real.

    ``timeline`` is read from ``clock``; ``wall`` always tells what happened on this machine. ``slot_costs`` are this
    step's own. ``peak_activation_bytes`` are measured, one entry a device. ``outputs`` are only kept by evaluate.
    """

    loss: float | None
    timeline: Timeline
    wall: Timeline
    clock: str
    step: int
    slot_costs: SlotCosts
    peak_activation_bytes: tuple[int, ...]
    worker_cpu_seconds: float
    update_seconds: tuple[float, ...] = ()
    gradient_norm: float | None = None
    outputs: Tensor | tuple[Tensor, ...] | None = field(default=None, repr=False)

    @property
    def covered(self) -> float:
        """The part of the workers' CPU time that recorded costs account for (CPU only)."""
        recorded = sum(map(sum, self.slot_costs.slots)) + sum(self.update_seconds)
        return recorded / self.worker_cpu_seconds if self.worker_cpu_seconds else math.nan


class CostHistory:
    """Slot costs of the last steps of one table at one batch size; the first step warms up and is dropped."""

    def __init__(self, window: int) -> None:
        self._steps: deque[tuple[tuple[float, ...], ...]] = deque(maxlen=window)
        self._warm = False

    def add(self, slots: tuple[tuple[float, ...], ...]) -> None:
        """Remember one step."""
        if not self._warm and self._steps:
            self._steps.clear()
            self._warm = True
        self._steps.append(slots)

    def __len__(self) -> int:
        return len(self._steps)

    def typical(self) -> tuple[tuple[float, ...], ...]:
        """The median cost of each slot."""
        return tuple(
            tuple(median(costs) for costs in zip(*rows, strict=True)) for rows in zip(*self._steps, strict=True)
        )


def build_report(
    schedule: Schedule,
    logs: Sequence[DeviceLog],
    *,
    clock: str,
    batch: int,
    history: CostHistory,
    unit_costs: Costs,
    latency: float,
    bandwidth: float,
    **rest: Any,
) -> StepReport:
    """Timelines and figures of a step. Raises PipelabError if the run did not keep the schedule's order."""
    verify_order(schedule, logs)
    sequences = batch / sum(schedule.weights)
    slots = tuple(tuple(max(reading.cost, 0.0) for reading in log.readings) for log in logs)
    sizes = {(d.route.producer, d.channel.kind): float(d.size) for log in logs for d in log.deliveries}
    step_costs = SlotCosts(slots, sizes, latency, bandwidth)
    history.add(slots)
    wall = _wall_timeline(schedule, logs, sequences)
    if clock == "wall":
        timeline = wall
    elif clock == "unit":
        timeline = simulate(schedule, _GivenCosts(unit_costs, sizes), batch=batch, clock="unit", check=False)
    else:
        typical = SlotCosts(history.typical(), sizes, latency, bandwidth)
        timeline = simulate(schedule, typical, batch=batch, clock="device", check=False)
        steps = len(history)
        note = "median of 1 step" if steps == 1 else f"median of {steps} steps"
        timeline = replace(timeline, note=note)
    updates = tuple(log.update_cost for log in logs)
    timeline = replace(timeline, holdings=_holdings(timeline, logs))
    if clock != "unit":
        timeline = replace(timeline, updates=_updates(schedule, timeline, updates))
    return StepReport(
        timeline=timeline,
        wall=wall,
        clock=clock,
        slot_costs=step_costs,
        update_seconds=updates,
        **rest,
    )


@dataclass(frozen=True)
class _GivenCosts:
    """Costs as given, with the bytes that were really sent."""

    given: Costs
    sizes: Mapping[tuple[Action, str], float]

    @property
    def unit(self) -> str:
        return self.given.unit

    @property
    def latency(self) -> float:
        return self.given.latency

    @property
    def bandwidth(self) -> float:
        return self.given.bandwidth

    def slot_cost(self, schedule: Schedule, device: int, position: int) -> float:
        return self.given.slot_cost(schedule, device, position)

    def message_size(self, schedule: Schedule, producer: Action, kind: str) -> float:
        return self.sizes.get((producer, kind), 0.0)


def verify_order(schedule: Schedule, logs: Sequence[DeviceLog]) -> None:
    """Check, from real time stamps, that each device kept its order and nothing was used before it was sent."""
    for device, log in enumerate(logs):
        if len(log.readings) != len(schedule.programs[device]):
            raise PipelabError(f"device {device} ran {len(log.readings)} of its {len(schedule.programs[device])} slots")
    for device, log in enumerate(logs):
        readings = log.readings
        for position in range(1, len(readings)):
            if readings[position].host_start < readings[position - 1].host_end:
                raise PipelabError(f"device {device} began slot {position} before slot {position - 1} was over")
        for delivery in log.deliveries:
            used = readings[delivery.route.needed_by[1]].host_start
            made = logs[delivery.channel.source].readings[delivery.route.sent_by[1]].host_end
            if not made <= delivery.sent <= delivery.taken <= used:
                raise PipelabError(
                    f"device {device} used {delivery.route.producer} before device {delivery.channel.source} sent it"
                )


def _wall_timeline(schedule: Schedule, logs: Sequence[DeviceLog], sequences: float) -> Timeline:
    origin = min((reading.start for log in logs for reading in log.readings), default=0.0)
    spans = tuple(
        Span(device, position, schedule.programs[device][position], reading.start - origin, reading.end - origin)
        for device, log in enumerate(logs)
        for position, reading in enumerate(log.readings)
    )
    messages = tuple(
        Message(
            d.channel.kind,
            d.route.producer,
            d.route.consumer,
            d.channel.source,
            d.channel.destination,
            sent=d.sent - origin,
            arrived=d.taken - origin,
            size=float(d.size),
        )
        for log in logs
        for d in log.deliveries
    )
    timeline = Timeline(schedule, spans, messages, clock="wall", unit="s", sequences=sequences)
    timeline = replace(timeline, holdings=_holdings(timeline, logs))
    return replace(timeline, updates=_updates(schedule, timeline, tuple(log.update_cost for log in logs)))


def _holdings(timeline: Timeline, logs: Sequence[DeviceLog]) -> tuple[Holding, ...]:
    """Measured bytes laid onto the timeline: a slot's peak from its start, what it left from its end."""
    result = []
    for device, log in enumerate(logs):
        steps: list[tuple[float, float]] = []
        for span in timeline.on_device(device):
            sample = log.samples[span.position]
            steps += [(span.start, float(sample.peak)), (span.end, float(sample.after))]
        result.append(Holding(device, tuple(steps)))
    return tuple(result)


def _updates(schedule: Schedule, timeline: Timeline, seconds: Sequence[float]) -> tuple[Span, ...]:
    """The optimizer's spans: at the flush, after the last backward of all devices."""
    last = schedule.microbatches - 1
    return tuple(
        Span(
            device,
            len(schedule.programs[device]),
            tuple(Action(stage, "U", last) for stage in schedule.stages_on(device)),
            timeline.end,
            timeline.end + cost,
        )
        for device, cost in enumerate(seconds)
        if cost > 0
    )
