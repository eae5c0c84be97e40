"""What a step returns, and how one comes from the workers' logs."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import median
from typing import Any

from pipelab.errors import PipelabError
from pipelab.memory import DeviceMemory
from pipelab.runtime.device.worker import Delivery, DeviceLog
from pipelab.schedules.action import Action
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.wire import Channel
from pipelab.simulation.costs import Costs, SlotCosts
from pipelab.simulation.simulate import simulate
from pipelab.timeline import Holding, Message, Span, Timeline

__all__ = ["CostHistory", "StepReport", "merge_logs", "slot_table", "verify_order"]


SlotTable = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, repr=False)
class StepReport:
    """One step, run for real.

    ``peak_activation_bytes`` are measured, one entry a device. ``outputs`` are only kept by evaluate. Timelines are
    made when they are first asked for; ``timeline`` is read from ``clock``, ``wall`` always tells what happened on
    this machine.
    """

    schedule: Schedule
    clock: str
    step: int
    loss: float | None
    batch: int
    logs: Sequence[DeviceLog] = field(repr=False)
    past: tuple[SlotTable, ...] = field(repr=False)
    """Slot costs of this step and the ones before it that the device clock takes the median of."""
    unit_costs: Costs = field(repr=False)
    latency: float
    bandwidth: float
    peak_activation_bytes: tuple[int, ...]
    worker_cpu_seconds: float
    peak_allocated_bytes: tuple[int | None, ...] = ()
    """What the CUDA allocator's own peak was above what it held before the step, one entry a device; None where it
    cannot be told: on a CPU, or on a GPU that several devices of one process share."""
    gradient_norm: float | None = None
    skipped: bool = False
    """Whether the update was left out, because a gradient was not finite (see ``grad_scaler``)."""
    outputs: Any = field(default=None, repr=False)

    def __repr__(self) -> str:
        loss = "none" if self.loss is None else f"{self.loss:.6g}"
        return f"StepReport({self.schedule.name}, step {self.step}, loss {loss}, {self.clock} clock)"

    @cached_property
    def slot_costs(self) -> SlotCosts:
        """What each slot of this very step cost."""
        return SlotCosts(slot_table(self.logs), self._sizes, self.latency, self.bandwidth)

    @property
    def memory(self) -> tuple[DeviceMemory, ...]:
        """Bytes per device: weights, gradients, optimizer state (after the step), activations at their peak."""
        return tuple(DeviceMemory(log.model_states, log.peak) for log in self.logs)

    @property
    def update_seconds(self) -> tuple[float, ...]:
        """What the optimizers cost, one entry a device."""
        return tuple(log.update_cost for log in self.logs)

    @property
    def covered(self) -> float:
        """The part of the workers' CPU time that recorded costs account for (CPU only)."""
        recorded = sum(map(sum, self.slot_costs.slots)) + sum(self.update_seconds)
        return recorded / self.worker_cpu_seconds if self.worker_cpu_seconds else math.nan

    @cached_property
    def wall(self) -> Timeline:
        """What happened on this machine."""
        return self._complete(_wall_timeline(self.schedule, self.logs, self.batch / sum(self.schedule.weights)))

    @cached_property
    def timeline(self) -> Timeline:
        """The timeline that ``clock`` tells."""
        if self.clock == "wall":
            return self.wall
        if self.clock == "unit":
            costs = _GivenCosts(self.unit_costs, self._sizes)
            return self._complete(simulate(self.schedule, costs, batch=self.batch, clock="unit", check=False))
        typical = SlotCosts(_median(self.past), self._sizes, self.latency, self.bandwidth)
        timeline = simulate(self.schedule, typical, batch=self.batch, clock="device", check=False)
        count = len(self.past)
        return self._complete(replace(timeline, note="1 step" if count == 1 else f"median of {count} steps"))

    @cached_property
    def _sizes(self) -> dict[tuple[Action, str], float]:
        return {(d.route.producer, d.channel.kind): float(d.size) for log in self.logs for d in log.deliveries}

    def _complete(self, timeline: Timeline) -> Timeline:
        """Lay measured bytes and update times onto a timeline (update times are seconds: not under the unit clock)."""
        timeline = replace(timeline, holdings=_holdings(timeline, self.logs))
        if timeline.unit != "s":
            return timeline
        return replace(timeline, updates=_updates(self.schedule, timeline, self.update_seconds))


class CostHistory:
    """Slot costs of the last steps of one table at one batch size; the first step warms up and is dropped."""

    def __init__(self, window: int) -> None:
        self._steps: deque[SlotTable] = deque(maxlen=window)
        self._warm = False

    def add(self, slots: SlotTable) -> tuple[SlotTable, ...]:
        """Remember one step; returns the steps that count now."""
        if not self._warm and self._steps:
            self._steps.clear()
            self._warm = True
        self._steps.append(slots)
        return tuple(self._steps)


def slot_table(logs: Sequence[DeviceLog]) -> SlotTable:
    """The cost of every slot, device by device."""
    return tuple(tuple(max(reading.cost, 0.0) for reading in log.readings) for log in logs)


def _median(steps: Sequence[SlotTable]) -> SlotTable:
    return tuple(tuple(median(costs) for costs in zip(*rows, strict=True)) for rows in zip(*steps, strict=True))


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


def merge_logs(logs: Sequence[DeviceLog], offsets: Sequence[float], *, on_device: bool = False) -> list[DeviceLog]:
    """All devices' logs on one clock, with each message's time of sending; ``offsets[r]`` is added to device r's.

    ``on_device``: hosts only enqueue, also their sends and receives. A message then lies, on the device's own clock,
    between the end of the slot that sent it and the start of the one that needed it.
    """
    if on_device:
        logs = [_on_device(log, logs) for log in logs]
    merged = []
    sent = {
        channel: iter([time + offset for time in times])
        for log, offset in zip(logs, offsets, strict=True)
        for channel, times in log.sent.items()
    }
    for log, offset in zip(logs, offsets, strict=True):
        readings = [
            replace(
                reading,
                host_start=reading.host_start + offset,
                host_end=reading.host_end + offset,
                start=reading.start + offset,
                end=reading.end + offset,
            )
            for reading in log.readings
        ]
        deliveries = []
        for d in log.deliveries:
            begun = next(sent[d.channel])
            ready = begun if math.isnan(d.ready) else d.ready + offset  # it was there when it was asked for
            deliveries.append(replace(d, ready=ready, taken=d.taken + offset, sent=begun))
        merged.append(replace(log, readings=readings, deliveries=deliveries))
    return merged


def _on_device(log: DeviceLog, logs: Sequence[DeviceLog]) -> DeviceLog:
    readings = [replace(r, host_start=r.start, host_end=r.end) for r in log.readings]
    deliveries: list[Delivery] = []
    sent: dict[Channel, list[float]] = {}
    for d in log.deliveries:
        needed = log.readings[d.route.needed_by[1]].start
        deliveries.append(replace(d, ready=needed, taken=needed))
    for other in logs:
        for d in other.deliveries:
            if logs[d.channel.source] is log:
                sent.setdefault(d.channel, []).append(log.readings[d.route.sent_by[1]].end)
    return replace(log, readings=readings, deliveries=deliveries, sent=sent)


def verify_order(schedule: Schedule, logs: Sequence[DeviceLog], slack: float = 0.0) -> None:
    """Check, from real time stamps, that each device kept its order and nothing was used before it was sent.

    ``slack`` (seconds) is how far clocks of different hosts may be apart.
    """
    for device, log in enumerate(logs):
        if len(log.readings) != len(schedule.programs[device]):
            raise PipelabError(f"device {device} ran {len(log.readings)} of its {len(schedule.programs[device])} slots")
    for device, log in enumerate(logs):
        readings = log.readings
        for position in range(1, len(readings)):
            if readings[position].host_start < readings[position - 1].host_end - slack:
                raise PipelabError(f"device {device} began slot {position} before slot {position - 1} was over")
        for delivery in log.deliveries:
            used = readings[delivery.route.needed_by[1]].host_start
            made = logs[delivery.channel.source].readings[delivery.route.sent_by[1]].host_end
            if not (made <= delivery.sent <= delivery.taken + slack and delivery.taken <= used):
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
            arrived=d.ready - origin,
            size=float(d.size),
        )
        for log in logs
        for d in log.deliveries
    )
    return Timeline(schedule, spans, messages, clock="wall", unit="s", sequences=sequences)


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
