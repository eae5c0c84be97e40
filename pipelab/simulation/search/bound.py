"""How short a step can be at best: a proof, not an estimate."""

from __future__ import annotations

import heapq

from pipelab.schedules.reserved import reserved
from pipelab.simulation.search.problem import Problem

__all__ = ["lower_bound"]


@reserved
def lower_bound(problem: Problem) -> float:
    """No order of F, B, I and W takes less: the largest bound of a single device, or of what it may hold.

    *Time.* An action cannot start before the longest path that leads to it (its head), and after it the longest path
    from it (its tail) is left to run. With heads and tails fixed, a device does best if it may interrupt its work and
    always goes on with what has the longest tail (Jackson's preemptive schedule; J. Carlier, EJOR 11, 1982). No order
    of whole actions takes less than that.

    *Whole backwards.* Let I take min(I, B) here, and W what is left of min(I + W, B). Then a table with a B is one
    with I and W instead that sends no later and runs no longer.

    *Order.* Let all micro-batches cost the same. Sort the times at which a stage runs its F, and give the k-th to
    micro-batch k; do so for each op and stage. Where x_i >= y_i + c for all i, the sorted times are so too, and what a
    device holds counts F, I and W, whichever they are. So of the best tables one runs every op of a stage in the order
    of its micro-batches, and the bound may ask for that.

    *Memory, as paths.* Let F of stage s and micro-batch i + k start before I of stage t >= s and micro-batch i ends, on
    one device. Then when the later of this F and F of t and i starts, every I of i to i + k is still to come on the
    stages up to s, and every I of i on those up to t. If so much does not fit, F has to wait for I. In the same way F
    has to wait for W of its own stage, if that many inputs cannot wait for W.

    *Memory, as an area.* What a stage holds of a micro-batch, it holds for at least the way from its F to its I, and
    then while W runs. The sum over a device is at most its limit times the time from its first F to the end.
    """
    takes, heads = _times(problem), [0.0] * (3 * problem.block)
    tails = list(heads)
    needs, order = _paths(problem), _in_order(problem)
    for action in order:
        for needed, way in needs[action]:
            heads[action] = max(heads[action], heads[needed] + takes[needed] + way)
    for action in reversed(order):
        for needed, way in needs[action]:
            tails[needed] = max(tails[needed], way + takes[action] + tails[action])
    found = 0.0
    for r in range(problem.devices):
        actions = [a for a in order if problem.homes[problem.parts(a)[1]] == r]
        found = max(found, _one_device([(heads[a], takes[a], tails[a]) for a in actions]))
        found = max(found, min(heads[a] for a in actions) + _area(problem, takes, r) / problem.limits[r])
    return found


def _times(problem: Problem) -> list[float]:
    """Of F, I and W by number, where a whole backward may take the place of I and W."""
    n, takes = problem.block, problem.takes
    half = [min(takes[k + n], takes[k + 3 * n]) for k in range(n)]
    rest = [max(min(takes[k + n] + takes[k + 2 * n], takes[k + 3 * n]) - half[k], 0.0) for k in range(n)]
    return takes[:n] + half + rest


def _in_order(problem: Problem) -> list[int]:
    """Micro-batch by micro-batch all F from the first stage down, then all I from the last stage up, then all W."""
    stages = range(problem.stages)
    ways = ((0, stages), (1, stages[::-1]), (2, stages))
    return [problem.number(op, s, i) for i in range(problem.microbatches) for op, way in ways for s in way]


def _paths(problem: Problem) -> list[list[tuple[int, float]]]:
    """What each action waits for, in any table; where micro-batches are alike, in the best one that keeps order."""
    n, m, more = problem.block, problem.microbatches, problem.more
    needs = [list(needed) for needed in problem.needs[: 3 * n]]
    columns = (problem.takes, problem.ways, more, problem.change)
    if any(len(set(column[k : k + m])) > 1 for column in columns for k in range(0, len(column), m)):
        return needs
    for action in range(3 * n):
        if action % m:
            needs[action].append((action - 1, 0.0))
    for r, limit in enumerate(problem.limits):
        mine = [s for s in range(problem.stages) if problem.homes[s] == r]
        for s in mine:
            below = sum(more[x * m] for x in mine if x <= s)
            between = 0.0
            for t in (x for x in mine if x >= s):
                between += more[t * m] if t > s else 0.0
                k = _room(limit - below - between - more[3 * n + t * m], below, m)
                for i in range(m - k):
                    needs[s * m + i + k].append((n + t * m + i, 0.0))
            waiting = min(more[s * m], -problem.change[2 * n + s * m])
            k = _room(limit - below, waiting, m)
            for i in range(m - k):
                needs[s * m + i + k].append((2 * n + s * m + i, 0.0))
    return needs


def _room(left: float, each: float, most: int) -> int:
    """The least k from 1 to ``most`` for which k times ``each`` is more than what is left."""
    return next((k for k in range(1, most) if k * each > left + 1e-9 * (each + abs(left))), most)


def _area(problem: Problem, takes: list[float], r: int) -> float:
    """The least that device r holds, times how long."""
    n, m, found = problem.block, problem.microbatches, 0.0
    for i in range(m):
        back = 0.0
        for s in reversed(range(problem.stages)):
            f, a = s * m + i, n + s * m + i
            back += takes[f] + takes[a] + (problem.ways[f] + problem.ways[a + m] if s + 1 < problem.stages else 0.0)
            if problem.homes[s] == r:
                waiting = min(problem.more[f], -problem.change[f + 2 * n])
                found += problem.more[f] * back + problem.more[f + 3 * n] * takes[a] + waiting * takes[f + 2 * n]
    return found


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
