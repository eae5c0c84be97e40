"""What shows what one micro-batch costs: a table with one device at work at a time, and its few sequences."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pipelab.schedules.action import Action
from pipelab.schedules.schedule import Schedule

__all__ = ["first_sequences", "one_pass"]


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
