"""What a step returns, and how one comes from the workers' logs."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import median
from typing import Any

import numpy as np

from pipelab.errors import PipelabError
from pipelab.quantities import DeviceMemory
from pipelab.runtime.device.clocks import Readings
from pipelab.runtime.device.log import DeviceLog
from pipelab.runtime.device.program import compile_table
from pipelab.runtime.messages import Compression, Delivery, Reduction, compression, deliveries, sums
from pipelab.schedules.action import Action, actions_of
from pipelab.schedules.schedule import Schedule
from pipelab.simulation.costs import CostModel, Costs, SlotCosts
from pipelab.simulation.links import Links, links_of
from pipelab.simulation.simulate import simulate
from pipelab.timeline import Holding, Message, Span, Timeline

__all__ = ["CostHistory", "StepRecord", "StepReport", "merge_logs", "slot_table", "verify_order"]


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
    """Slot costs of this step and the ones before it that the device clock takes the median of; none, if unmeasured."""
    unit_costs: Costs = field(repr=False)
    links: Links
    peak_activation_bytes: tuple[int, ...]
    worker_cpu_seconds: float
    sequences: int = 0
    """All sequences in the table: of the batch, and of micro-batches that came in with earlier steps."""
    weight_versions: tuple[int, ...] = ()
    """The most versions of a stage's weights on each device, where weights change on the way (else nothing)."""
    stash: bool = True
    """Whether old versions were kept."""
    peak_allocated_bytes: tuple[int | None, ...] = ()
    """What the CUDA allocator's own peak was above what it held before the step, one entry a device; None where it
    cannot be told: on a CPU, or on a GPU that several devices of one process share."""
    gradient_norm: float | None = None
    skipped: bool = False
    """Whether the update was left out, because a gradient was not finite (see ``grad_scaler``)."""
    stepped_early: tuple[int, ...] = ()
    """The stages that were stepped before the norm over all was known (see ``post_validation``)."""
    rolled_back: bool = False
    """Whether those steps were undone at the flush, and made anew with the right factor or left out."""
    outputs: Any = field(default=None, repr=False)
    speeds: tuple[float, ...] = ()
    """By what this clock divides the costs of each device (see ``speeds`` of Pipeline)."""
    speeds_note: str = ""
    reductions: tuple[Reduction, ...] = ()
    """Sums of gradients over the replicas of a mesh, stage by stage, by the clock of ``deliveries``."""

    def __repr__(self) -> str:
        loss = "none" if self.loss is None else f"{self.loss:.6g}"
        if not self.finite:
            loss += " (not finite: Pipeline(check_finite=True) says where it comes up)"
        return f"StepReport({self.schedule.name}, step {self.step}, loss {loss}, {self.clock} clock)"

    @property
    def finite(self) -> bool:
        """Whether the loss, if there is one, is a finite number."""
        return self.loss is None or math.isfinite(self.loss)

    @cached_property
    def slot_costs(self) -> SlotCosts:
        """What each slot of this very step cost, at the speed of its device."""
        self._require_costs()
        return SlotCosts(self._at_speed(slot_table(self.logs)), self._sizes, links=self.links.unpacked)

    def _at_speed(self, slots: SlotTable) -> SlotTable:
        return tuple(tuple(cost / speed for cost in row) for row, speed in zip(slots, self.speeds, strict=True))

    @cached_property
    def deliveries(self) -> tuple[Delivery, ...]:
        """Every message of the step, in the order in which its receiver took it, device by device."""
        return tuple(deliveries(self.schedule, self.logs))

    @property
    def compression(self) -> Compression | None:
        """What packing messages has saved, where links have a compression; None where none was packed."""
        return compression(self.logs)

    @property
    def memory(self) -> tuple[DeviceMemory, ...]:
        """Bytes per device: weights, gradients, optimizer state (after the step), activations at their peak."""
        return tuple(DeviceMemory(log.model_states, log.peak) for log in self.logs)

    @property
    def update_seconds(self) -> tuple[float, ...]:
        """What the optimizers cost, one entry a device."""
        return tuple(log.early_cost + log.update_cost for log in self.logs)

    @property
    def covered(self) -> float:
        """The part of the workers' CPU time that recorded costs account for (CPU only)."""
        told = zip(self.slot_costs.slots, self.update_seconds, self.speeds, strict=True)
        recorded = sum((sum(slots) + update) * speed for slots, update, speed in told)
        return recorded / self.worker_cpu_seconds if self.worker_cpu_seconds else math.nan

    @cached_property
    def wall(self) -> Timeline:
        """What happened on this machine."""
        self._require_costs()
        return self._complete(_wall_timeline(self))

    @cached_property
    def timeline(self) -> Timeline:
        """The timeline that ``clock`` tells. Raises PipelabError if the step was run with ``measure_costs=False``."""
        self._require_costs()
        if self.clock == "wall":
            return replace(self.wall, note=self.speeds_note)
        # The table's micro-batches have the weights of this step already.
        timeline = simulate(self.schedule, self.costs, clock=self.clock, check=False)
        count = len(self.past)
        of = "" if self.clock == "unit" else "1 step" if count == 1 else f"median of {count} steps"
        note = ", ".join(filter(None, (of, self.speeds_note)))
        return self._complete(replace(timeline, sequences=self.sequences / sum(self.schedule.weights), note=note))

    @cached_property
    def costs(self) -> CostModel:
        """What ``timeline`` is simulated from; under the wall clock what the slots of this very step cost."""
        self._require_costs()
        if self.clock == "wall":
            return self.slot_costs
        if self.clock == "unit":
            return _GivenCosts(self.unit_costs, self._sizes, self.speeds)
        return SlotCosts(self._at_speed(_median(self.past)), self._sizes, links=self.links.unpacked)

    def _require_costs(self) -> None:
        if not self.past:
            raise PipelabError(
                "this step was run with measure_costs=False: no one knows when its slots ran; leave measure_costs out "
                "for a timeline"
            )

    @cached_property
    def _sizes(self) -> dict[tuple[Action, str], float]:
        return {(d.route.producer, d.channel.kind): float(d.size) for d in self.deliveries}

    def _complete(self, timeline: Timeline) -> Timeline:
        """Lay measured bytes and update times onto a timeline (update times are seconds: not under the unit clock)."""
        timeline = replace(timeline, holdings=_holdings(timeline, self.logs), stash=self.stash)
        if timeline.unit != "s" or "U" in self.schedule.ops:
            return timeline
        return replace(timeline, updates=_updates(self, timeline))


@dataclass
class StepRecord:
    """What a report is made of, once somebody asks for one.

    ``logs`` are what each device noted down on its own clock, or rows of their numbers; ``offsets`` are added to its
    times. ``updates`` has a row a device: bytes of weights, gradients and optimizer state after the update, what it
    cost early and at the flush, CPU time. ``slack`` (seconds) is how far off the clock may be where logs come from
    several hosts.
    """

    training: bool
    loss: float | None
    cpu: float
    logs: Sequence[DeviceLog] | np.ndarray
    number: int = 0
    batch: int = 0
    updates: Sequence[Sequence[float]] = ()
    offsets: Sequence[float] = ()
    on_device: bool = False
    slack: float = 0.0
    norm: float | None = None
    skipped: bool = False
    stepped_early: tuple[int, ...] = ()
    rolled_back: bool = False
    outputs: Any = None
    reductions: Sequence[Reduction] = ()
    part: tuple[int, bool, tuple[int, ...]] | None = None
    """Of a schedule without a flush: steps since it was empty, whether it was drained, all micro-batches' sizes."""


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
    return tuple(tuple(log.readings.cost) for log in logs)


def _median(steps: Sequence[SlotTable]) -> SlotTable:
    return tuple(tuple(median(costs) for costs in zip(*rows, strict=True)) for rows in zip(*steps, strict=True))


@dataclass(frozen=True)
class _GivenCosts:
    """Costs as given, at the speeds of devices, with the bytes that were really sent."""

    given: Costs
    sizes: Mapping[tuple[Action, str], float]
    speeds: Sequence[float]

    @property
    def unit(self) -> str:
        return self.given.unit

    @property
    def latency(self) -> float:
        return self.given.latency

    @property
    def bandwidth(self) -> float:
        return self.given.bandwidth

    @property
    def links(self) -> Links:
        return links_of(self.given).unpacked

    def slot_cost(self, schedule: Schedule, device: int, position: int) -> float:
        return self.given.slot_cost(schedule, device, position) / self.speeds[device]

    def message_size(self, schedule: Schedule, producer: Action, kind: str) -> float:
        return self.sizes.get((producer, kind), 0.0)


def merge_logs(
    schedule: Schedule, logs: Sequence[DeviceLog], offsets: Sequence[float], *, on_device: bool = False
) -> list[DeviceLog]:
    """All devices' logs on one clock; ``offsets[r]`` is added to device r's.

    ``on_device``: hosts only enqueue, also their sends and receives. A message then lies, on the device's own clock,
    between the end of the slot that sent it and the start of the one that needed it.
    """
    if on_device:
        logs = _on_device(schedule, logs)
    if not any(offsets):
        return list(logs)
    return [_moved(log, offset) for log, offset in zip(logs, offsets, strict=True)]


def _moved(log: DeviceLog, offset: float) -> DeviceLog:
    """The log of a device whose clock is ``offset`` behind."""

    def later(times: Sequence[float]) -> list[float]:
        return [time + offset for time in times]

    r = log.readings
    readings = Readings(later(r.host_start), later(r.host_end), later(r.start), later(r.end), r.cost)
    return replace(log, readings=readings, sent=later(log.sent), ready=later(log.ready), taken=later(log.taken))


def _on_device(schedule: Schedule, logs: Sequence[DeviceLog]) -> list[DeviceLog]:
    moved = [
        replace(
            log,
            readings=replace(log.readings, host_start=log.readings.start, host_end=log.readings.end),
            sent=list(log.sent),
            ready=list(log.ready),
            taken=list(log.taken),
        )
        for log in logs
    ]
    for passage in compile_table(schedule).passages:
        sender, receiver = moved[passage.channel.source], moved[passage.channel.destination]
        sender.sent[passage.sent] = sender.readings.end[passage.route.sent_by[1]]
        needed = receiver.readings.start[passage.route.needed_by[1]]
        receiver.ready[passage.taken] = receiver.taken[passage.taken] = needed
    return moved


def verify_order(schedule: Schedule, logs: Sequence[DeviceLog], slack: float = 0.0) -> None:
    """Check, from real time stamps, that each device kept its order and nothing was used before it was sent.

    ``slack`` (seconds) is how far clocks of different hosts may be apart.
    """
    starts, ends = [log.readings.host_start for log in logs], [log.readings.host_end for log in logs]
    for device, program in enumerate(schedule.programs):
        if len(starts[device]) != len(program):
            raise PipelabError(f"device {device} ran {len(starts[device])} of its {len(program)} slots")
        for position, (start, before) in enumerate(zip(starts[device][1:], ends[device], strict=False), 1):
            if start < before - slack:
                raise PipelabError(f"device {device} began slot {position} before slot {position - 1} was over")
    for passage in compile_table(schedule).passages:
        source, destination = passage.channel.source, passage.channel.destination
        sent, taken = logs[source].sent[passage.sent], logs[destination].taken[passage.taken]
        made = ends[source][passage.route.sent_by[1]]
        used = starts[destination][passage.route.needed_by[1]]
        if not (made <= sent <= taken + slack and taken <= used):
            raise PipelabError(f"device {destination} used {passage.route.producer} before device {source} sent it")


def _wall_timeline(report: StepReport) -> Timeline:
    schedule, logs = report.schedule, report.logs
    origin = min((log.readings.start[0] for log in logs if log.readings.start), default=0.0)
    spans = tuple(
        Span(device, position, slot, start - origin, end - origin)
        for device, (program, log) in enumerate(zip(schedule.programs, logs, strict=True))
        for position, (slot, start, end) in enumerate(zip(program, log.readings.start, log.readings.end, strict=True))
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
        for d in report.deliveries
    )
    sequences = report.sequences / sum(schedule.weights)
    updates = tuple(span for span in spans if all(action.op == "U" for action in actions_of(span.slot)))
    work = tuple(span for span in spans if span not in updates) if updates else spans
    made: dict[str, Any] = {
        "sequences": sequences,
        "updates": updates,
        "sums": sums(report.schedule, report.reductions, origin),
    }
    return Timeline(schedule, work, messages, clock="wall", unit="s", **made)


def _holdings(timeline: Timeline, logs: Sequence[DeviceLog]) -> tuple[Holding, ...]:
    """Measured bytes laid onto the timeline: a slot's peak from its start, what it left from its end."""
    result = []
    for device, log in enumerate(logs):
        steps: list[tuple[float, float]] = []
        more = [span for span in timeline.updates if span.device == device and span.position < len(log.peaks)]
        for span in sorted((*timeline.on_device(device), *more), key=lambda span: span.position):
            peak, after = log.peaks[span.position], log.after[span.position]
            steps += [(span.start, float(peak)), (span.end, float(after))]
        result.append(Holding(device, tuple(steps)))
    return tuple(result)


def _updates(report: StepReport, timeline: Timeline) -> tuple[Span, ...]:
    """The optimizer's spans: at the flush, behind all devices; an early one at the end of its own device's part."""
    schedule, early = report.schedule, set(report.stepped_early)

    def span(device: int, stages: Sequence[int], start: float, cost: float, number: int = 0) -> Span:
        slot = tuple(Action(stage, "U", schedule.microbatches - 1) for stage in stages)
        return Span(device, len(schedule.programs[device]) + number, slot, start, start + cost)

    homes = [schedule.stages_on(device) for device in range(schedule.devices)]
    first = {
        device: span(device, stages, timeline.on_device(device)[-1].end, report.logs[device].early_cost)
        for device, home in enumerate(homes)
        if (stages := [s for s in home if s in early])
    }
    flush = max([timeline.end, *(one.end for one in first.values())])
    then = tuple(
        span(device, stages, flush, log.update_cost, number=device in first)
        for device, (home, log) in enumerate(zip(homes, report.logs, strict=True))
        if log.update_cost > 0 and (stages := [s for s in home if report.rolled_back or s not in early])
    )
    return (*first.values(), *then)
