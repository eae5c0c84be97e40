"""Tables slot by slot: each device, when it is free, takes what its rule prefers among what can start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from pipelab.simulation.search.problem import Problem, Rows

__all__ = ["Rule", "build", "one_by_one", "rules"]


@dataclass(frozen=True)
class Rule:
    """What a device prefers.

    ``ahead``: how much it takes in before its first I, as a fraction of its limit. ``forward_first``: F before I where
    both can start. ``patience``: W is run where nothing else can start within that fraction of its time. ``deep``: of
    several F, that of the latest stage; else that of the first micro-batch.
    """

    ahead: float
    forward_first: bool
    patience: float
    deep: bool


def rules() -> Iterator[Rule]:
    """All of them."""
    for ahead, first, patience, deep in product((1.0, 0.75, 0.5), (False, True), (0.0, 0.5, 1.0), (True, False)):
        yield Rule(ahead, first, patience, deep)


def one_by_one(problem: Problem) -> Rows:
    """The rows that hold least: one micro-batch goes all the way before the next begins, each W right after its I."""
    rows: Rows = [[] for _ in range(problem.devices)]
    down = [(0, s) for s in range(problem.stages)]
    up = [(op, s) for s in reversed(range(problem.stages)) for op in (1, 2)]
    for i in range(problem.microbatches):
        for op, s in (*down, *up):
            rows[problem.homes[s]].append(problem.number(op, s, i))
    return rows


def build(problem: Problem, rule: Rule) -> Rows | None:
    """The rows that the rule gives; None where it comes to a stop, because memory is full of what cannot go on."""
    p, m, stages, block = problem.devices, problem.microbatches, problem.stages, problem.block
    takes, needs, homes, more = problem.takes, problem.needs, problem.homes, problem.more
    rows: Rows = [[] for _ in range(p)]
    mine = [[s for s in range(stages) if homes[s] == r] for r in range(p)]
    back = [max((more[block + s * m + i] for s in row for i in range(m)), default=0.0) for row in mine]
    grows = [max(problem.change[k + block], 0.0) for k in range(block)]  # from F on there is room for it
    end = [-1.0] * (3 * block)
    free, held, begun = [0.0] * p, [0.0] * p, [False] * p
    next_of = [0] * (3 * stages)  # by op and stage: its next micro-batch
    left = 3 * block

    def ready(action: int) -> float | None:
        """When all that it needs is there; None while that is not known."""
        time = 0.0
        for needed, way in needs[action]:
            if end[needed] < 0:
                return None
            time = max(time, end[needed] + way)
        return time

    def room(r: int, s: int, i: int) -> bool:
        """Whether F may come in: what is already here needs room for later stages of this device, and for gradients."""
        limit = problem.limits[r] * (1.0 if begun[r] else rule.ahead)
        comes, spare = more[s * m + i] + grows[s * m + i], max((more[x * m + i] for x in mine[r] if x > s), default=0.0)
        spare = max(spare, back[r])
        after, slack = held[r] + comes, 1 + 1e-9
        return after + spare <= problem.limits[r] * slack and after <= max(limit, comes + spare) * slack

    def choices(r: int) -> Iterator[tuple[float, tuple[float, ...], int]]:
        """(when it could start, preference, action): one for each op and stage."""
        for s in mine[r]:
            for op in range(3):
                i = next_of[op * stages + s]
                if i == m or (op == 0 and not room(r, s, i)):
                    continue
                action = op * block + s * m + i
                time = ready(action)
                if time is None:
                    continue
                kind = 2 if op == 2 else (op == 0) != rule.forward_first
                order = -s if (rule.deep and op == 0) else i * stages + (s if op == 0 else -s)
                yield max(time, free[r]), (kind, order), action

    while left:
        best: tuple[float, tuple[float, ...], int, int] | None = None
        for r in sorted(range(p), key=free.__getitem__):
            found = list(choices(r))
            if not found:
                continue
            soon = min((time for time, pick, _ in found if pick[0] < 2), default=None)
            usable = [c for c in found if c[1][0] < 2 or soon is None or soon - free[r] > rule.patience * takes[c[2]]]
            begin = min(time for time, _, _ in usable)
            time, pick, action = min((c for c in usable if c[0] <= begin + 1e-12), key=lambda c: c[1])
            if best is None or time < best[0]:
                best = (time, pick, action, r)
        if best is None:
            return None
        time, _, action, r = best
        op, s, _ = problem.parts(action)
        rows[r].append(action)
        end[action] = free[r] = time + takes[action]
        next_of[op * stages + s] += 1
        held[r] += problem.change[action] + (grows[action % block] * (1, -1, 0)[op])
        begun[r] = begun[r] or op == 1
        left -= 1
    return rows
