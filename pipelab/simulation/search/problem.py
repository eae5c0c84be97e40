"""The search's view of a pipeline: numbered actions, what each takes, needs and holds; a quick walk through rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipelab.schedules.action import Action
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.table import Array, B, F, I, Table, W
from pipelab.simulation.costs import CostModel
from pipelab.simulation.links import links_of
from pipelab.simulation.prices import Prices

__all__ = ["OPS", "Problem", "Rows", "Timed"]

OPS = "FIWB"
Rows = list[list[int]]


@dataclass(frozen=True)
class Timed:
    """When actions run, by number; ``tight[a]`` is what the start of a waited for, -1 for nothing.

    Where a backward is whole, its I and W end with it.
    """

    makespan: float
    end: list[float]
    tight: list[int]


@dataclass(frozen=True)
class Problem:
    """m micro-batches through stages that live on ``homes``; each backward in one, or in two.

    Action (op, stage s, micro-batch i) is number (op * stages + s) * m + i, with F, I, W and B as 0, 1, 2 and 3.
    By number, ``takes`` is how long an action runs, ``more`` what its device needs while it runs above what is there
    before, and ``change`` how much more is there afterwards. ``ways`` is by number how long the message takes that an F
    or an I sends. ``limits`` is what each device may hold, in bytes where the costs know them, else in full shares.
    """

    devices: int
    microbatches: int
    homes: tuple[int, ...]
    costs: CostModel
    batch: int | None
    in_bytes: bool
    takes: list[float]
    ways: list[float]
    more: list[float]
    change: list[float]
    limits: tuple[float, ...] = ()

    @classmethod
    def of(
        cls, homes: Sequence[int], devices: int, microbatches: int, costs: CostModel, batch: int | None = None
    ) -> Problem:
        """The problem that ``costs`` set, for stage s on ``homes[s]``, without limits."""
        stages, m = range(len(homes)), range(microbatches)
        programs = [
            [Action(s, op, i) for s in stages if homes[s] == r for op in OPS for i in m] for r in range(devices)
        ]
        blank = Schedule.from_rows(programs, name="searched", placement=[(r,) for r in homes])
        blank = blank if batch is None else blank.for_batch(batch)
        table, prices = blank.table, Prices(blank, costs)
        number = _numbers(table, len(homes), microbatches)

        def by_number(found: Array) -> Array:
            sorted_: Array = np.zeros(len(table))
            sorted_[number] = np.nan_to_num(found)
            return sorted_.reshape(len(OPS), -1)

        kept = prices.bytes_kept()
        if kept is None:
            held = waiting = np.full(len(homes) * microbatches, blank.share)
            gradient = np.zeros(len(held))
        else:
            held, gradient, waiting = (
                by_number(found)[op] for op, found in ((0, kept.held), (1, kept.gradient), (1, kept.waiting))
            )
        links = links_of(costs)
        links.require(devices)

        ways = [
            0.0
            if not 0 <= s + step < len(homes) or homes[s] == homes[s + step]
            else links.of(homes[s], homes[s + step]).time(costs.message_size(blank, Action(s, op, i), kind))
            for op, kind, step in (("F", "activation", 1), ("B", "gradient", -1))
            for s in stages
            for i in m
        ]
        return cls(
            devices,
            microbatches,
            tuple(homes),
            costs,
            batch,
            kept is not None,
            by_number(prices.slot_costs()).ravel().tolist(),
            ways,
            np.concatenate([held, np.maximum(gradient, waiting - held), 0 * held, gradient]).tolist(),
            np.concatenate([held, waiting - held, -waiting, -held]).tolist(),
            (np.inf,) * devices,
        )

    @property
    def stages(self) -> int:
        """How many."""
        return len(self.homes)

    @property
    def block(self) -> int:
        """How many actions of one op."""
        return self.stages * self.microbatches

    @cached_property
    def one_microbatch(self) -> list[float]:
        """By device, what its largest micro-batch takes in all of its stages, with what an I adds."""
        m, found = range(self.microbatches), []
        for r in range(self.devices):
            mine = [s * self.microbatches for s in range(self.stages) if self.homes[s] == r]
            back = max(self.more[self.block + k + i] for k in mine for i in m)
            found.append(max(sum(self.more[k + i] for k in mine) for i in m) + back)
        return found

    def number(self, op: int, stage: int, microbatch: int) -> int:
        """Of an action."""
        return (op * self.stages + stage) * self.microbatches + microbatch

    def parts(self, action: int) -> tuple[int, int, int]:
        """(op, stage, micro-batch) of a number."""
        rest, i = divmod(action, self.microbatches)
        op, s = divmod(rest, self.stages)
        return op, s, i

    @cached_property
    def needs(self) -> list[tuple[tuple[int, float], ...]]:
        """By number, (action that it waits for, how long the message takes)."""
        found: list[tuple[tuple[int, float], ...]] = []
        m, block = self.microbatches, self.block
        for a in range(len(OPS) * block):
            op, s, _ = self.parts(a)
            if op == 0:
                found.append(((a - m, self.ways[a - m]),) if s else ())
            elif op == 2:
                found.append(((a - block, 0.0),))
            else:
                forward = a % block
                after = block + forward + m
                more = ((after, self.ways[after]),) if s + 1 < self.stages else ()
                found.append(((forward, 0.0), *more))
        return found

    def timed(self, rows: Rows) -> Timed | None:
        """When everything runs in this order; None where it waits forever."""
        takes, needs, block = self.takes, self.needs, self.block
        size = len(takes)
        end, tight, whole = [-1.0] * size, [-1] * size, {}
        at, free, before = [0] * self.devices, [0.0] * self.devices, [-1] * self.devices
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
                        tight[action] = why
                        end[action] = time = begin + takes[action]
                        if action >= 3 * block:
                            end[action - 2 * block] = end[action - block] = time
                            whole[action - 2 * block] = action
                        previous, k = action, k + 1
                        continue
                    break
                if k > at[r]:
                    moved, left = True, left - (k - at[r])
                    at[r], free[r], before[r] = k, time, previous
        return None if left else Timed(max(free), end, [whole.get(a, a) for a in tight])

    def fits(self, row: Sequence[int], r: int) -> bool:
        """Whether device r never holds more than it may."""
        held, limit, more, change = 0.0, self.limits[r] * (1 + 1e-9), self.more, self.change
        for action in row:
            if held + more[action] > limit:
                return False
            held += change[action]
        return True

    @cached_property
    def pays(self) -> list[bool]:
        """By stage and micro-batch: whether a whole backward takes less than its two halves, or needs less memory."""
        n, takes, more = self.block, self.takes, self.more
        return [
            takes[k + 2 * n] < (takes[k] + takes[k + n]) * (1 - 1e-9) or more[k + 2 * n] < more[k] * (1 - 1e-9)
            for k in range(n, 2 * n)
        ]

    def merged(self, rows: Rows) -> Rows:
        """With a whole B wherever W follows its I directly and B pays."""
        found: Rows = []
        for row in rows:
            found.append([])
            for action in row:
                half = action - self.block
                if found[-1][-1:] == [half] and half >= self.block and self.pays[half - self.block]:
                    found[-1][-1] = action + self.block
                else:
                    found[-1].append(action)
        return found

    def rows_of(self, schedule: Schedule) -> Rows | None:
        """A table of F, I, W and B as rows; None for one that has anything else, or other homes."""
        if schedule.placement != tuple((r,) for r in self.homes) or schedule.table.fused:
            return None
        if not schedule.ops <= set(OPS) or schedule.microbatches != self.microbatches:
            return None
        bounds = schedule.table.bounds
        numbers = _numbers(schedule.table, self.stages, self.microbatches).tolist()
        return [numbers[bounds[r] : bounds[r + 1]] for r in range(self.devices)]

    def schedule(self, rows: Rows, name: str) -> Schedule:
        """Rows as a table."""
        named = [[Action(s, OPS[op], i) for op, s, i in map(self.parts, row)] for row in rows]
        return Schedule.from_rows(named, name=name, placement=[(r,) for r in self.homes])


def _numbers(table: Table, stages: int, microbatches: int) -> Array:
    """Of each action of a table."""
    op = np.zeros(max(F, B, I, W) + 1, np.int64)
    op[[F, I, W, B]] = range(len(OPS))
    found: Array = (op[table.op] * stages + table.stage) * microbatches + table.microbatch
    return found
