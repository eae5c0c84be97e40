"""What one micro-batch costs, stage by stage: a table with one device at work at a time, and costs read off its run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipelab.runtime.report import StepReport
from pipelab.schedules.action import Action
from pipelab.schedules.schedule import Schedule
from pipelab.simulation.costs import Costs

__all__ = ["costs_of", "first_sequences", "one_pass"]


def first_sequences(value: Any, count: int, times: int = 1) -> Any:
    """The first ``count`` sequences of inputs or targets, ``times`` over; None where there are none."""
    if value is None:
        return None
    parts = [tensor[:count] for tensor in ((value,) if isinstance(value, Tensor) else value)]
    if times > 1:
        parts = [torch.cat([part] * times) for part in parts]
    return parts[0] if isinstance(value, Tensor) else tuple(parts)


def one_pass(schedule: Schedule) -> Schedule:
    """A micro-batch of weight 1 through all stages and back, each stage on its first device.

    Where the schedule splits backwards a second one follows, which goes back by I and W.
    """
    homes = tuple(devices[:1] for devices in schedule.placement)
    ways = ("B", "IW") if "I" in schedule.ops else ("B",)
    programs = tuple(
        tuple(
            Action(s, op, i)
            for i, way in enumerate(ways)
            for ops, order in (("F", 1), (way, -1))
            for s in range(schedule.stages)[::order]
            if homes[s] == (r,)
            for op in ops
        )
        for r in range(schedule.devices)
    )
    return Schedule("profile", programs, homes, (1.0,) * len(ways))


def costs_of(report: StepReport, input_bytes: float) -> Costs:
    """Seconds of each op and bytes kept and sent, per stage; ``input_bytes`` is stage 0's."""
    timeline = report.timeline
    stages, split = timeline.schedule.stages, "I" in timeline.schedule.ops
    seconds = {op: [0.0] * stages for op in "FBIW"}
    kept, waiting, sizes = ([0.0] * stages for _ in range(3))
    for device, log in enumerate(report.logs):
        held = 0
        for span, after in zip(timeline.on_device(device), log.after, strict=True):
            assert isinstance(span.slot, Action)
            op, s = span.slot.op, span.slot.stage
            seconds[op][s] = span.duration
            if op == "F":
                kept[s] = float(after - held)
            elif op == "I":
                waiting[s] = kept[s] + float(after - held)
            held = after
    for message in timeline.messages:
        if message.kind == "activation":
            sizes[message.producer.stage] = message.size
    return Costs(
        forward=seconds["F"],
        backward=seconds["B"],
        input_gradient=seconds["I"] if split else None,
        weight_gradient=seconds["W"] if split else None,
        message_bytes=sizes,
        activation_bytes=kept,
        waiting_bytes=waiting if split else None,
        input_bytes=[input_bytes, *sizes[:-1]],
        unit="s",
    )
