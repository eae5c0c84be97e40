"""What one micro-batch costs, stage by stage: a table with one device at work at a time, and costs read off its run."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pipelab.runtime.report import StepReport
from pipelab.schedules.action import Action
from pipelab.schedules.schedule import Schedule
from pipelab.simulation.costs import Costs

__all__ = ["costs_of", "first_sequences", "one_pass"]


def first_sequences(value: Any, count: int) -> Any:
    """The first ``count`` sequences of inputs or targets; None where there are none."""
    if value is None:
        return None
    return value[:count] if isinstance(value, Tensor) else tuple(tensor[:count] for tensor in value)


def one_pass(schedule: Schedule) -> Schedule:
    """One micro-batch of weight 1 through all stages and back, each stage on its first device."""
    homes = tuple(devices[:1] for devices in schedule.placement)
    programs = tuple(
        (
            *(Action(s, "F", 0) for s, (home,) in enumerate(homes) if home == r),
            *(Action(s, "B", 0) for s, (home,) in reversed(list(enumerate(homes))) if home == r),
        )
        for r in range(schedule.devices)
    )
    return Schedule("profile", programs, homes, (1.0,))


def costs_of(report: StepReport, input_bytes: float) -> Costs:
    """One forward, backward, message size, activation size and input size per stage; ``input_bytes`` is stage 0's."""
    timeline = report.timeline
    forward, backward, kept = ([0.0] * timeline.schedule.stages for _ in range(3))
    for span in timeline.spans:
        assert isinstance(span.slot, Action)
        (forward if span.slot.op == "F" else backward)[span.slot.stage] = span.duration
    for device, log in enumerate(report.logs):
        held = 0
        for span, after in zip(timeline.on_device(device), log.after, strict=True):
            assert isinstance(span.slot, Action)
            if span.slot.op == "F":
                kept[span.slot.stage] = float(after - held)
            held = after
    sizes = [0.0] * timeline.schedule.stages
    for message in timeline.messages:
        if message.kind == "activation":
            sizes[message.producer.stage] = message.size
    return Costs(
        forward=forward,
        backward=backward,
        message_bytes=sizes,
        activation_bytes=kept,
        input_bytes=[input_bytes, *sizes[:-1]],
        unit="s",
    )
