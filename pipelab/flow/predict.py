"""When jobs would run: from one end of a job to the next, by the rule of ``dispatch.py``."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

from pipelab.flow.dispatch import Dispatch
from pipelab.flow.plan import Plan
from pipelab.flow.realised import Realised

__all__ = ["predict"]

_CLOSE = 1e-12  # of a time: what ends so near to it ends with it


def predict(plan: Plan, costs: Sequence[float], every: float = 0.0) -> Realised:
    """Jobs that last ``costs``; item i comes at i * ``every``."""
    dispatch = Dispatch(plan, streamed=every > 0)
    start, end = [0.0] * len(plan), [0.0] * len(plan)
    events = [(i * every, -1, i) for i in range(plan.items)] if every > 0 else []
    heapify(events)
    now = 0.0
    while dispatch.left:
        for worker, job in dispatch.start():
            start[job], end[job] = now, now + costs[job]
            heappush(events, (end[job], worker, job))
        until = events[0][0] * (1 + _CLOSE)
        while events and events[0][0] <= until:
            now, worker, number = heappop(events)
            if worker < 0:
                dispatch.arrive(number)
            else:
                dispatch.finish(worker, number)
    return Realised(plan, dispatch.begun, dispatch.freed, start, end, every)
