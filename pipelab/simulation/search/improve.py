"""A table at random, and one made better step by step: some actions go earlier or later, and the others follow."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random

from pipelab.simulation.search.problem import Problem, Rows, Timed

__all__ = ["improve", "scattered"]

_MEMORY = 60  # how many steps back a table may be as long as: late acceptance (Burke and Bykov, EJOR 258, 2017)
_PATIENCE, _SLACK = 500, 1.05

_FAR = (0.03, 0.1, 0.3)  # how far, as a part of the makespan
_ALIKE: tuple[Callable[[tuple[int, int, int], tuple[int, int, int]], bool] | None, ...] = (
    None,
    None,
    lambda one, other: one[0] == other[0] and one[2] == other[2],  # (op, stage, micro-batch)
    lambda one, other: one[2] == other[2],
    lambda one, other: one[:2] == other[:2],
)
"""What goes along with an action: nothing; the same op of its micro-batch; all of its micro-batch; of its stage."""


def scattered(problem: Problem, random: Random) -> Rows | None:
    """Rows of micro-batches that come in at random distances and on a noisy way; None where memory is full of them."""
    n, m, when = problem.block, problem.microbatches, dict[int, tuple[float, int]]()
    busy = sum(problem.takes[: 3 * n]) / (problem.devices * m)  # what a micro-batch takes of a device
    apart, noise, late = random.uniform(0, 1.5), random.choice((0.0, 0.1, 0.3)) * busy, random.uniform(0, 2) * busy
    comes, whole = 0.0, random.choice((0.0, 0.5, 1.0))
    for i in range(m):
        time = comes
        for op, stages in ((0, range(problem.stages)), (1, reversed(range(problem.stages)))):
            for s in stages:
                action, at = problem.number(op, s, i), time + random.gauss(0, noise)
                time += problem.takes[action] + problem.ways[action]
                if op and problem.pays[action - n] and random.random() < whole:
                    when[action + 2 * n] = at, 0
                    continue
                when[action] = at, 0
                if op:
                    when[action + n] = time + random.uniform(0, late), 0
        comes += apart * busy * random.uniform(0.3, 1.7)
    return _in_turn(problem, when)


def improve(
    problem: Problem, rows: Rows, random: Random, go_on: Callable[[int], bool], bound: float
) -> tuple[Rows, int]:
    """The best rows found from ``rows`` on, and how many were tried.

    ``go_on(tries)`` says whether there is time for more. A step gives one action another time, or cuts or joins a
    backward; then every device takes the actions in the order of their times, as far as needs and memory allow.
    """
    now = problem.timed(rows)
    assert now is not None
    best, record, tries, since = rows, now, 0, 0
    past = [_worth(problem, now)] * _MEMORY
    while go_on(tries) and record.makespan > bound * (1 + 1e-9):
        tries += 1
        found = _in_turn(problem, _moved(problem, rows, now, random))
        if found is not None:
            then = problem.timed(found)
            assert then is not None
            if _worth(problem, then) <= max(past[tries % _MEMORY], _worth(problem, now)):
                rows, now = found, then
                if then.makespan < record.makespan - 1e-12:
                    best, record, since = rows, then, 0
        past[tries % _MEMORY] = min(past[tries % _MEMORY], _worth(problem, now))
        since += 1
        if since == _PATIENCE:  # again from the best, over tables that take longer
            rows, now, since = best, record, 0
            past = [_worth(problem, now) * _SLACK] * _MEMORY
    return best, tries


def _worth(problem: Problem, timed: Timed) -> float:
    """The makespan, and a little of when the devices end on average: so that a step may be better at equal makespan."""
    return timed.makespan + 1e-3 * sum(timed.end[problem.block : 2 * problem.block]) / problem.block


def _moved(problem: Problem, rows: Rows, timed: Timed, random: Random) -> dict[int, tuple[float, int]]:
    """By action when it should run, after one step: some go elsewhere, or two of the longest path change places.

    Elsewhere a change of places cannot make the table shorter (J. Błażewicz and others on the job shop, EJOR 93, 1996).
    """
    when = {a: (timed.end[a] - problem.takes[a], k) for row in rows for k, a in enumerate(row)}
    if random.random() < 0.5:
        action, alike = random.choice(list(when)), random.choice(_ALIKE)
        by, kind = random.gauss(0, random.choice(_FAR)) * timed.makespan, problem.parts(action)
        for one in [action] if alike is None else [a for a in when if alike(kind, problem.parts(a))]:
            when[one] = when[one][0] + by, 0
        return when
    path = _longest(when, timed)
    k = random.randrange(len(path))
    action, block = path[k], problem.block
    if k + 1 < len(path) and random.random() < 0.7:
        (time, place), (before, there) = when[action], when[path[k + 1]]
        if random.random() < 0.5:
            when[action] = before, there - 1
        else:
            when[path[k + 1]] = time, place + 1
    elif action >= 3 * block:
        time, place = when.pop(action)
        when[action - 2 * block] = time, place
        when[action - block] = random.uniform(time, timed.makespan), place
    elif action >= block and problem.pays[action % block]:
        half = action % block + block
        whole = when.pop(half), when.pop(half + block)
        when[half + 2 * block] = random.choice(whole)
    return when


def _longest(when: dict[int, tuple[float, int]], timed: Timed) -> list[int]:
    """The longest path, from its end."""
    path = [max(when, key=timed.end.__getitem__)]
    while timed.tight[path[-1]] >= 0:
        path.append(timed.tight[path[-1]])
    return path


def _in_turn(problem: Problem, when: dict[int, tuple[float, int]]) -> Rows | None:
    """Rows in which each action comes as soon as it is the earliest of those that can run; None for a full memory."""
    block, m, homes, last = problem.block, problem.microbatches, problem.homes, problem.stages - 1
    rows: Rows = [[] for _ in range(problem.devices)]
    held, blocked = [0.0] * problem.devices, [list[int]() for _ in range(problem.devices)]
    missing = [2 if k // m < last else 1 for k in range(block)]  # of each backward
    ready = [(when[i], i) for i in range(m)]
    heapq.heapify(ready)
    left = len(when)

    def back(k: int) -> None:
        missing[k] -= 1
        if not missing[k]:
            action = k + 3 * block if k + 3 * block in when else k + block
            heapq.heappush(ready, (when[action], action))

    while ready:
        _, action = heapq.heappop(ready)
        k = action % block
        r = homes[k // m]
        if held[r] + problem.more[action] > problem.limits[r] * (1 + 1e-9):
            blocked[r].append(action)
            continue
        rows[r].append(action)
        left -= 1
        held[r] += problem.change[action]
        if problem.change[action] < 0:
            for other in blocked[r]:
                heapq.heappush(ready, (when[other], other))
            blocked[r].clear()
        if action < block:
            back(k)
            if k // m < last:
                heapq.heappush(ready, (when[k + m], k + m))
        elif action < 2 * block or action >= 3 * block:
            if k >= m:
                back(k - m)
            if action < 2 * block:
                heapq.heappush(ready, (when[k + 2 * block], k + 2 * block))
    return None if left else rows
