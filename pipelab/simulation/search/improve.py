"""A table made better by small steps: actions of the longest path change places on their device."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from pipelab.simulation.search.problem import Problem, Rows, Timed

__all__ = ["improve"]

_MEMORY = 60  # how many steps back a table may be as long as: late acceptance (Burke and Bykov, EJOR 258, 2017)


def improve(
    problem: Problem, rows: Rows, random: Random, go_on: Callable[[int], bool], bound: float
) -> tuple[Rows, Timed, int]:
    """The best rows found from ``rows`` on, when they run, and how many were tried.

    ``go_on(tries)`` says whether there is time for more. A device's order changes only on the longest path: elsewhere a
    change cannot make the table shorter (J. Błażewicz and others on the job shop, EJOR 93, 1996).
    """
    now = problem.timed(rows)
    assert now is not None
    best, best_timed = rows, now
    rows = [list(row) for row in rows]
    past, tries, since = [_worth(problem, now)] * _MEMORY, 0, 0
    while go_on(tries) and best_timed.makespan > bound * (1 + 1e-9):
        tries += 1
        moves = _moves(problem, rows, now)
        if not moves:
            break
        r, source, target = random.choice(moves)
        row = list(rows[r])
        row.insert(target, row.pop(source))
        if not problem.fits(row, r):
            continue
        kept, rows[r] = rows[r], row
        then = problem.timed(rows)
        worth = None if then is None else _worth(problem, then)
        if then is None or worth is None or (worth > past[tries % _MEMORY] and worth > _worth(problem, now)):
            rows[r] = kept
        else:
            now = then
            if then.makespan < best_timed.makespan - 1e-12:
                best, best_timed, since = [list(row) for row in rows], then, 0
        past[tries % _MEMORY] = (
            min(past[tries % _MEMORY], _worth(problem, now)) if since < 400 else _worth(problem, now)
        )
        since += 1
    return best, best_timed, tries


def _worth(problem: Problem, timed: Timed) -> float:
    """The makespan, and a little of when the devices end on average: so that a step may be better at equal makespan."""
    block = problem.stages * problem.microbatches
    return timed.makespan + 1e-3 * sum(timed.end[block : 2 * block]) / block


def _moves(problem: Problem, rows: Rows, timed: Timed) -> list[tuple[int, int, int]]:
    """(device, from, to) of actions of the longest path that could run earlier, or let others go first."""
    place = {action: (r, k) for r, row in enumerate(rows) for k, action in enumerate(row)}
    action = max(range(problem.size), key=timed.end.__getitem__)
    found = []
    while (before := timed.tight[action]) >= 0:
        if problem.device[before] == problem.device[action]:
            r, k = place[action]
            b = place[before][1]
            if b == k - 1 and all(before != needed for needed, _ in problem.needs[action]):
                found.append((r, k, b))
                first = b
                while first > 0 and timed.tight[rows[r][first]] == rows[r][first - 1]:
                    first -= 1
                if first < b:
                    found.append((r, k, first))
                    found.append((r, first, k))
        action = before
    return found
