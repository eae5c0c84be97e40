"""What stands where: actions on a grid of devices and columns of time, and what can be read from that."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from types import MappingProxyType

from pipelab.errors import ConfigurationError, ScheduleError
from pipelab.schedules.action import Action
from pipelab.schedules.dependencies import ACTIVATION, GRADIENT
from pipelab.schedules.schedule import Schedule, TimeTable
from pipelab.schedules.text import write_csv
from pipelab.teaching.board.rules import Rules
from pipelab.teaching.board.words import columns
from pipelab.timeline import Message, Span, Timeline

__all__ = ["Grid"]


@dataclass(frozen=True)
class Grid:
    """``starts`` maps each placed action to the column in which it starts.

    An action occupies the columns start .. start + duration - 1 of its stage's device. Raises ConfigurationError for
    what no grid can show: unknown actions, negative times, two actions in one cell. Other faults (an action before
    what it needs, a device over its limit) are possible: a grid does not judge.
    """

    rules: Rules
    starts: Mapping[Action, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", MappingProxyType(dict(self.starts)))
        for action, start in self.starts.items():
            problem = self.rules.unknown(action)
            if problem is None and not 0 <= start <= self.rules.columns - self.rules.duration(action):
                problem = f"{action} at t = {start}: the board has columns 0..{self.rules.columns - 1}"
            if problem is not None:
                raise ConfigurationError(problem)
        for device, row in enumerate(self.rows):
            for (_, end, before), (start, _, action) in pairwise(row):
                if start < end:
                    raise ConfigurationError(
                        f"device {device}: {action} starts at t = {start}, but {before} runs until t = {end}"
                    )

    def __hash__(self) -> int:
        return hash((self.rules, frozenset(self.starts.items())))

    def __reduce__(self) -> tuple[type[Grid], tuple[Rules, dict[Action, int]]]:
        return (type(self), (self.rules, dict(self.starts)))

    @cached_property
    def rows(self) -> tuple[tuple[tuple[int, int, Action], ...], ...]:
        """(start, end, action) of each device, in order."""
        rows: list[list[tuple[int, int, Action]]] = [[] for _ in range(self.rules.devices)]
        for action, start in self.starts.items():
            rows[self.rules.home(action)].append((start, start + self.rules.duration(action), action))
        return tuple(tuple(sorted(row)) for row in rows)

    def end(self, action: Action) -> int:
        """The first column after a placed action."""
        return self.starts[action] + self.rules.duration(action)

    def overlapping(self, device: int, start: int, end: int) -> Action | None:
        """The first action of ``device`` that stands in one of the columns start .. end - 1, or None."""
        row = self.rows[device]
        k = bisect_right(row, start, key=lambda entry: entry[1])
        return row[k][2] if k < len(row) and row[k][0] < end else None

    def at(self, device: int, time: int) -> Action | None:
        """The action that runs in column ``time`` of ``device``, or None."""
        return self.overlapping(device, time, time + 1)

    @cached_property
    def missing(self) -> tuple[Action, ...]:
        """What is not placed yet, micro-batch by micro-batch in the order of its way."""
        return tuple(action for action in self.rules.actions() if action not in self.starts)

    @property
    def complete(self) -> bool:
        """Whether every action stands on the board."""
        return not self.missing

    @cached_property
    def makespan(self) -> int:
        """Columns from t = 0 to the last end."""
        return max((row[-1][1] for row in self.rows if row), default=0)

    @property
    def bubble_fraction(self) -> float:
        """Idle cells over all cells, up to the last end."""
        busy = sum(end - start for row in self.rows for start, end, _ in row)
        return 1 - busy / (self.rules.devices * self.makespan) if self.makespan else 0.0

    @cached_property
    def _holdings(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        found = []
        for row in self.rows:
            changes: dict[int, int] = {}
            for start, _, action in row:
                if action.op != "F":
                    continue
                changes[start] = changes.get(start, 0) + 1
                over = self.rules.over(action)
                if over in self.starts and self.end(over) > start:
                    changes[self.end(over)] = changes.get(self.end(over), 0) - 1
            count, steps = 0, []
            for t in sorted(changes):
                count += changes[t]
                steps.append((t, count))
            found.append(tuple(steps))
        return tuple(found)

    def holding(self, device: int) -> tuple[tuple[int, int], ...]:
        """What ``device`` has in flight: steps (time, pairs of stage and micro-batch held from then on).

        A micro-batch is in flight on a stage from the start of its F to the end of its B or W; without these, forever.
        """
        return self._holdings[device]

    def held(self, device: int) -> tuple[float, ...]:
        """Micro-batches in flight on ``device`` in each column up to the makespan, in full shares (chunks / v)."""
        counts: list[float] = []
        now = 0.0
        for t, count in (*self.holding(device), (self.makespan, 0)):
            counts += [now] * (t - len(counts))
            now = count / self.rules.chunks
        return tuple(counts)

    @cached_property
    def peaks(self) -> tuple[float, ...]:
        """The most micro-batches in flight on each device, in full shares."""
        most = (max((count for _, count in steps), default=0) for steps in self._holdings)
        return tuple(count / self.rules.chunks for count in most)

    # ---- the same as a table, a schedule, a timeline -----------------------------------------------------------

    def timetable(self) -> TimeTable:
        """The grid: each action in the column where it starts, None elsewhere (idle, or still busy)."""
        rows = []
        for row in self.rows:
            cells: list[Action | None] = [None] * (row[-1][0] + 1 if row else 0)
            for start, _, action in row:
                cells[start] = action
            rows.append(tuple(cells))
        return TimeTable(tuple(rows))

    def to_csv(self) -> str:
        """The grid as CSV: a row a device, a column a time slot, each action where it starts. Rules are not in it."""
        return write_csv(self.timetable().rows)

    def schedule(self, name: str = "yours") -> Schedule:
        """The order in which a complete board runs, for the runtime. Nothing here says whether it is sound.

        Raises ScheduleError, which names the first missing action, unless the board is complete.
        """
        if self.missing:
            total = len(self.rules.actions())
            raise ScheduleError(
                f"the board is not complete: {len(self.missing)} of {total} actions are missing, the first is "
                f"{self.missing[0]}"
            )
        return self._order(name)

    def _order(self, name: str) -> Schedule:
        programs = tuple(tuple(action for _, _, action in row) for row in self.rows)
        return Schedule(name, programs, self.rules.placement, (1.0,) * self.rules.microbatches)

    def timeline(self, name: str = "yours") -> Timeline:
        """What stands on the board as a Timeline of one unit a column, unfinished boards too.

        Each message arrives when it is sent: whoever starts later than that has been placed later.
        """
        spans = [
            Span(device, position, action, float(start), float(end))
            for device, row in enumerate(self.rows)
            for position, (start, end, action) in enumerate(row)
        ]
        return Timeline(self._order(name), tuple(spans), tuple(self._messages()), clock="drawn")

    def _messages(self) -> list[Message]:
        found = []
        for action in self.starts:
            device = self.rules.home(action)
            for source in self.rules.inputs(action):
                home = self.rules.home(source)
                if source in self.starts and home != device:
                    kind, sent = ACTIVATION if source.op == "F" else GRADIENT, float(self.end(source))
                    found.append(Message(kind, source, action, home, device, sent, sent))
        return sorted(found, key=lambda message: (message.sent, message.source, message.consumer))

    def __str__(self) -> str:
        done = f"{len(self.starts)} of {len(self.rules.actions())} actions"
        return f"{done} in {columns(self.makespan)} ({self.rules})"
