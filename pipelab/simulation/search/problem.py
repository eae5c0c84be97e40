"""The search's view of a pipeline: numbered actions, what each takes, needs and holds; a quick walk through rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from pipelab.schedules.action import Action
from pipelab.schedules.schedule import Schedule
from pipelab.simulation.costs import Costs

__all__ = ["OPS", "Problem", "Rows", "Timed"]

OPS = "FIW"
Rows = list[list[int]]


@dataclass(frozen=True)
class Timed:
    """When actions run, by number; ``tight[a]`` is what the start of a waited for, -1 for nothing."""

    makespan: float
    start: list[float]
    end: list[float]
    tight: list[int]


@dataclass(frozen=True)
class Problem:
    """m micro-batches through stages that live on ``homes``; each backward in two.

    Action (op, stage s, micro-batch i) is number (op * stages + s) * m + i, with F, I and W as 0, 1 and 2.
    ``limits``: what each device may hold, in the unit of ``holds``: what a stage keeps of a micro-batch, from F to W.
    """

    devices: int
    microbatches: int
    homes: tuple[int, ...]
    times: tuple[tuple[float, ...], ...]
    holds: tuple[float, ...]
    limits: tuple[float, ...]
    latency: float = 0.0
    costs: Costs = field(default_factory=Costs)

    @classmethod
    def of(
        cls,
        homes: Sequence[int],
        devices: int,
        microbatches: int,
        costs: Costs,
        limits: Sequence[float],
        *,
        in_bytes: bool,
    ) -> Problem:
        """The problem that ``costs`` set, for stage s on ``homes[s]``."""
        placement = tuple((r,) for r in homes)
        blank = Schedule("blank", ((),) * devices, placement, (1.0,) * microbatches)
        stages = range(len(homes))
        times = tuple(tuple(costs.action_cost(blank, Action(s, op, 0)) for s in stages) for op in OPS)
        holds = tuple(costs.held_bytes(blank, Action(s, "F", 0)) if in_bytes else blank.share for s in stages)
        size = max((costs.message_size(blank, Action(s, "F", 0), "activation") for s in stages), default=0.0)
        latency = costs.latency + size / costs.bandwidth
        return cls(devices, microbatches, tuple(homes), times, holds, tuple(limits), latency, costs)

    @property
    def stages(self) -> int:
        """How many."""
        return len(self.homes)

    @property
    def size(self) -> int:
        """How many actions."""
        return 3 * self.stages * self.microbatches

    @property
    def one_microbatch(self) -> list[float]:
        """By device, what one micro-batch takes in all of its stages."""
        pairs = list(zip(self.homes, self.holds, strict=True))
        return [sum(held for home, held in pairs if home == r) for r in range(self.devices)]

    def number(self, op: int, stage: int, microbatch: int) -> int:
        """Of an action."""
        return (op * self.stages + stage) * self.microbatches + microbatch

    def parts(self, action: int) -> tuple[int, int, int]:
        """(op, stage, micro-batch) of a number."""
        rest, i = divmod(action, self.microbatches)
        op, s = divmod(rest, self.stages)
        return op, s, i

    @cached_property
    def takes(self) -> list[float]:
        """By number, how long an action takes."""
        return [self.times[op][s] for op in range(3) for s in range(self.stages) for _ in range(self.microbatches)]

    @cached_property
    def device(self) -> list[int]:
        """By number, where it runs."""
        return [self.homes[s] for _ in range(3) for s in range(self.stages) for _ in range(self.microbatches)]

    @cached_property
    def needs(self) -> list[tuple[tuple[int, float], ...]]:
        """By number, (action that it waits for, how long the message takes)."""
        found: list[tuple[tuple[int, float], ...]] = []
        last = self.stages - 1
        for op in range(3):
            for s in range(self.stages):
                for i in range(self.microbatches):
                    if op == 0:
                        need = [(self.number(0, s - 1, i), self._way(s - 1, s))] if s else []
                    elif op == 1:
                        need = [(self.number(0, s, i), 0.0)]
                        need += [(self.number(1, s + 1, i), self._way(s + 1, s))] if s < last else []
                    else:
                        need = [(self.number(1, s, i), 0.0)]
                    found.append(tuple(need))
        return found

    def _way(self, source: int, destination: int) -> float:
        return 0.0 if self.homes[source] == self.homes[destination] else self.latency

    @cached_property
    def followers(self) -> list[list[int]]:
        """By number, the actions that wait for it."""
        found: list[list[int]] = [[] for _ in range(self.size)]
        for action, needs in enumerate(self.needs):
            for needed, _ in needs:
                found[needed].append(action)
        return found

    def timed(self, rows: Rows) -> Timed | None:
        """When everything runs in this order; None where it waits forever."""
        takes, needs = self.takes, self.needs
        start, end = [0.0] * self.size, [-1.0] * self.size
        tight, at, free, before = [-1] * self.size, [0] * self.devices, [0.0] * self.devices, [-1] * self.devices
        moved, left = True, sum(map(len, rows))
        while moved and left:
            moved = False
            for r, row in enumerate(rows):
                k, time, previous = at[r], free[r], before[r]
                while k < len(row):
                    action, begin, why = row[k], time, previous
                    for needed, way in needs[action]:
                        there = end[needed]
                        if there < 0:
                            break
                        if there + way > begin:
                            begin, why = there + way, needed
                    else:
                        start[action], tight[action] = begin, why
                        end[action] = time = begin + takes[action]
                        previous, k = action, k + 1
                        continue
                    break
                if k > at[r]:
                    moved, left = True, left - (k - at[r])
                    at[r], free[r], before[r] = k, time, previous
        return None if left else Timed(max(free), start, end, tight)

    def fits(self, row: Sequence[int], r: int) -> bool:
        """Whether device r never holds more than it may."""
        held, limit, block = 0.0, self.limits[r] * (1 + 1e-9), self.stages * self.microbatches
        for action in row:
            if action < block:
                held += self.holds[action // self.microbatches]
                if held > limit:
                    return False
            elif action >= 2 * block:
                held -= self.holds[(action - 2 * block) // self.microbatches]
        return True

    def rows_of(self, schedule: Schedule) -> Rows | None:
        """A table of F, I, W and whole B as rows; None for one that has anything else, or other homes."""
        if schedule.placement != tuple((r,) for r in self.homes) or schedule.table.fused:
            return None
        if not schedule.ops <= set("FBIW") or schedule.microbatches != self.microbatches:
            return None
        rows: Rows = []
        for program in schedule.programs:
            rows.append([])
            for action in program:
                assert isinstance(action, Action)
                for op in "IW" if action.op == "B" else action.op:
                    rows[-1].append(self.number(OPS.index(op), action.stage, action.microbatch))
        return rows if sum(map(len, rows)) == self.size else None

    def schedule(self, rows: Rows, name: str) -> Schedule:
        """Rows as a table."""
        named = [[Action(s, OPS[op], i) for op, s, i in map(self.parts, row)] for row in rows]
        return Schedule.from_rows(named, name=name, placement=[(r,) for r in self.homes])
