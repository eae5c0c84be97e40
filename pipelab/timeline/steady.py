"""How busy devices are while a pipeline is full: what a schedule without a flush has to offer."""

from __future__ import annotations

from dataclasses import dataclass

from pipelab.errors import PipelabError
from pipelab.schedules.action import actions_of
from pipelab.timeline.timeline import Timeline

__all__ = ["Steady", "steady_state"]


@dataclass(frozen=True)
class Steady:
    """``bubble``: idle device time as a fraction, from ``start`` to ``end`` (in the timeline's unit).

    ``imbalance`` is the part of it that no order can avoid: 1 - mean / max of what a micro-batch costs the devices.
    Updates count as work.
    """

    start: float
    end: float
    bubble: float
    imbalance: float


def steady_state(timeline: Timeline) -> Steady:
    """From stage 0's first backward to its last forward: then the pipeline neither fills nor drains.

    Raises PipelabError where stage 0 runs no forward after its first backward, so that nothing lies between.
    """
    everything = (*timeline.spans, *timeline.updates)
    first = [span for span in everything if any(action.stage == 0 for action in actions_of(span.slot))]
    backwards = [span.start for span in first if any(action.op in "BIW" for action in actions_of(span.slot))]
    forwards = [span.end for span in first if any(action.op == "F" for action in actions_of(span.slot))]
    start, end = min(backwards, default=0.0), max(forwards, default=0.0)
    if end <= start:
        name = timeline.schedule.name
        raise PipelabError(
            f"'{name}' has no steady state here: stage 0 runs no forward after its first backward; take more "
            "micro-batches, or a schedule that mixes forwards and backwards, such as '1f1b'"
        )
    p = timeline.schedule.devices
    busy, cost = [0.0] * p, [0.0] * p
    for span in everything:
        busy[span.device] += max(0.0, min(span.end, end) - max(span.start, start))
        cost[span.device] += span.duration
    return Steady(start, end, 1 - sum(busy) / (p * (end - start)), 1 - sum(cost) / (p * max(cost)))
