"""How short a step can be at best: a proof, not an estimate."""

from __future__ import annotations

import heapq

from pipelab.schedules.reserved import reserved
from pipelab.simulation.search.problem import Problem

__all__ = ["lower_bound"]


@reserved
def lower_bound(problem: Problem) -> float:
    """No order takes less: the largest bound of a single device.

    An action cannot start before the longest path that leads to it (its head), and after it the longest path from it
    (its tail) is left to run. With heads and tails fixed, a device does best if it may interrupt its work and always
    goes on with what has the longest tail (Jackson's preemptive schedule; J. Carlier, EJOR 11, 1982). No order of whole
    actions takes less than that.
    """
    heads, tails = _heads(problem), _tails(problem)
    found = 0.0
    for r in range(problem.devices):
        actions = [a for a in range(problem.size) if problem.device[a] == r]
        found = max(found, _one_device([(heads[a], problem.takes[a], tails[a]) for a in actions]))
    return found


def _heads(problem: Problem) -> list[float]:
    found = [0.0] * problem.size
    for action in _in_order(problem):
        for needed, way in problem.needs[action]:
            found[action] = max(found[action], found[needed] + problem.takes[needed] + way)
    return found


def _tails(problem: Problem) -> list[float]:
    found = [0.0] * problem.size
    for action in reversed(_in_order(problem)):
        for needed, way in problem.needs[action]:
            found[needed] = max(found[needed], way + problem.takes[action] + found[action])
    return found


def _in_order(problem: Problem) -> list[int]:
    """All F from the first stage down, then all I from the last stage up, then all W."""
    stages, micro = range(problem.stages), range(problem.microbatches)
    order = [problem.number(0, s, i) for s in stages for i in micro]
    order += [problem.number(1, s, i) for s in reversed(stages) for i in micro]
    return order + [problem.number(2, s, i) for s in stages for i in micro]


def _one_device(jobs: list[tuple[float, float, float]]) -> float:
    """The end of Jackson's preemptive schedule of (head, time, tail)."""
    waiting = sorted(jobs)
    ready: list[list[float]] = []  # [-tail, time left]
    time = worst = 0.0
    k = 0
    while k < len(waiting) or ready:
        if not ready:
            time = max(time, waiting[k][0])
        while k < len(waiting) and waiting[k][0] <= time:
            heapq.heappush(ready, [-waiting[k][2], waiting[k][1]])
            k += 1
        tail, left = ready[0]
        until = time + left if k == len(waiting) else min(time + left, waiting[k][0])
        if until >= time + left:
            heapq.heappop(ready)
            worst = max(worst, until - tail)
        else:
            ready[0][1] = left - (until - time)
        time = until
    return worst
