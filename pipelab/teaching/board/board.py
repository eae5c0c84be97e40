"""The board of "Draw your own": actions placed on a grid of devices and columns of time, one legal move at a time.

A board never changes: a move makes a new one, or says why it cannot be made. So undoing is keeping the old one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from types import MappingProxyType

from pipelab.errors import ConfigurationError, PipelabError, ScheduleError
from pipelab.schedules.action import Action, format_slot
from pipelab.schedules.checker import Violation, require_sound
from pipelab.schedules.dependencies import ACTIVATION, GRADIENT
from pipelab.schedules.schedule import Schedule, TimeTable
from pipelab.schedules.text import write_csv
from pipelab.teaching.board import reasons
from pipelab.teaching.board.rules import Rules
from pipelab.teaching.board.text import read_board
from pipelab.teaching.board.words import columns, counted, held, listed
from pipelab.timeline import Message, Span, Timeline

__all__ = ["Board", "Choice", "IllegalMove", "Opening", "Removal"]


class IllegalMove(PipelabError, ValueError):
    """An action that may not stand where it was put. ``violation`` says why."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(violation.message)
        self.violation = violation

    def __reduce__(self) -> tuple[type[IllegalMove], tuple[Violation]]:
        return (type(self), (self.violation,))


@dataclass(frozen=True, slots=True)
class Choice:
    """An action that could be meant for a cell: legal there, or with the ``reason`` why not, in a sentence."""

    action: Action
    reason: str | None

    @property
    def legal(self) -> bool:
        """Whether it may be placed."""
        return self.reason is None


@dataclass(frozen=True, slots=True)
class Opening:
    """Where ``action`` could be placed next: ``time`` is the first column of ``device`` that it may start in."""

    device: int
    time: int
    action: Action


@dataclass(frozen=True, slots=True)
class Removal:
    """What taking ``action`` away does: the ``board`` that is left, and what went with it.

    ``leaning`` needed it, directly or through others; ``crowded`` are forwards that would have been too many on their
    device without the backwards that went.
    """

    board: Board
    action: Action
    leaning: tuple[Action, ...]
    crowded: tuple[Action, ...]

    @property
    def also(self) -> tuple[Action, ...]:
        """All that went beside ``action``."""
        return (*self.leaning, *self.crowded)

    @property
    def sentence(self) -> str:
        """What went, and why."""
        said = f"{self.action} is taken away"
        if self.leaning:
            said += f", and {listed(self.leaning)}, which {'lean' if len(self.leaning) > 1 else 'leans'} on it"
        if self.crowded:
            said += f"; {listed(self.crowded)} too: without those backwards a device would hold more than its limit"
        return said


@dataclass(frozen=True)
class Board:
    """What stands where: ``starts`` maps each placed action to the column in which it starts.

    An action occupies the columns start .. start + duration - 1 of its stage's device. Raises ConfigurationError for
    what no grid can show: unknown actions, negative times, two actions in one cell. Other faults (an action before
    what it needs, a device over its limit) are possible on a board that was loaded, and :meth:`violations` lists them;
    :meth:`place` never makes one.
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
        for device, row in enumerate(self._rows):
            for (_, end, before), (start, _, action) in pairwise(row):
                if start < end:
                    raise ConfigurationError(
                        f"device {device}: {action} starts at t = {start}, but {before} runs until t = {end}"
                    )

    @classmethod
    def empty(cls, rules: Rules) -> Board:
        """A board with nothing on it."""
        return cls(rules)

    def __hash__(self) -> int:
        return hash((self.rules, frozenset(self.starts.items())))

    def __reduce__(self) -> tuple[type[Board], tuple[Rules, dict[Action, int]]]:
        return (type(self), (self.rules, dict(self.starts)))

    # ---- what stands there ---------------------------------------------------------------------------------------

    @cached_property
    def _rows(self) -> tuple[tuple[tuple[int, int, Action], ...], ...]:
        """(start, end, action) of each device, in order."""
        rows: list[list[tuple[int, int, Action]]] = [[] for _ in range(self.rules.devices)]
        for action, start in self.starts.items():
            rows[self.rules.home(action.stage)].append((start, start + self.rules.duration(action), action))
        return tuple(tuple(sorted(row)) for row in rows)

    def end(self, action: Action) -> int:
        """The first column after a placed action."""
        return self.starts[action] + self.rules.duration(action)

    def overlapping(self, device: int, start: int, end: int) -> Action | None:
        """The first action of ``device`` that stands in one of the columns start .. end - 1, or None."""
        row = self._rows[device]
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
        return max((row[-1][1] for row in self._rows if row), default=0)

    @property
    def bubble_fraction(self) -> float:
        """Idle cells over all cells, up to the last end."""
        busy = sum(end - start for row in self._rows for start, end, _ in row)
        return 1 - busy / (self.rules.devices * self.makespan) if self.makespan else 0.0

    @cached_property
    def _holdings(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        found = []
        for row in self._rows:
            changes: dict[int, int] = {}
            for start, _, action in row:
                if action.op != "F":
                    continue
                changes[start] = changes.get(start, 0) + 1
                backward = Action(action.stage, "B", action.microbatch)
                if backward in self.starts and self.end(backward) > start:
                    changes[self.end(backward)] = changes.get(self.end(backward), 0) - 1
            count, steps = 0, []
            for t in sorted(changes):
                count += changes[t]
                steps.append((t, count))
            found.append(tuple(steps))
        return tuple(found)

    def holding(self, device: int) -> tuple[tuple[int, int], ...]:
        """What ``device`` has in flight: steps (time, pairs of stage and micro-batch held from then on).

        A micro-batch is in flight on a stage from the start of its F to the end of its B; without a B, for ever.
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

    def violations(self) -> tuple[Violation, ...]:
        """Everything that is wrong with what stands here; nothing on boards that :meth:`place` made."""
        return self._violations

    @cached_property
    def _violations(self) -> tuple[Violation, ...]:
        return tuple(sorted(reasons.violations(self), key=lambda v: (v.position or 0, v.device)))

    # ---- moves ---------------------------------------------------------------------------------------------------

    def why_not(self, device: int, time: int, action: Action) -> Violation | None:
        """Why ``action`` may not be placed at ``time`` of ``device``, or None if it may.

        Its ``code`` is one of ``pipelab.schedules.CODES`` or of BOARD_CODES: "occupied", "memory", "off-board".
        The memory cap is looked at over time: a forward is in flight until its backward ends, for ever while that is
        not placed, and may crowd out what stands later already.
        """
        return reasons.why_not(self, device, time, action)

    def place(self, device: int, time: int, action: Action) -> Board:
        """The board with ``action`` starting in column ``time`` of ``device``. Raises IllegalMove, which says why."""
        violation = self.why_not(device, time, action)
        if violation is not None:
            raise IllegalMove(violation)
        return Board(self.rules, {**self.starts, action: time})

    def remove(self, action: Action) -> tuple[Board, tuple[Action, ...]]:
        """The board without ``action``, and what else had to go. Raises ConfigurationError if it is not placed.

        What needs it goes with it, and what needs that. Where a backward goes, its micro-batch is held for ever, and
        later forwards of its device may be too many: those go too, the first one over the limit first.
        """
        removal = self.removal(action)
        return removal.board, removal.also

    def removal(self, action: Action) -> Removal:
        """As :meth:`remove`, with the two kinds of what went told apart and in a sentence."""
        if action not in self.starts:
            there = f"it has {counted(len(self.starts), 'action')}" if self.starts else "it is empty"
            raise ConfigurationError(f"{action} is not on the board, so it cannot be taken away; {there}")
        leaning = self._leaning_on(action)
        board = self._without({action, *leaning})
        before = {violation.action for violation in reasons.over_limit(self)}
        crowded: set[Action] = set()
        while over := [v for v in reasons.over_limit(board) if v.action not in before]:
            first = min(over, key=lambda v: board.starts[v.action]).action
            goes = {first, *board._leaning_on(first)}
            crowded |= goes
            board = board._without(goes)
        return Removal(board, action, self._in_order(leaning), self._in_order(crowded))

    def _leaning_on(self, action: Action) -> set[Action]:
        found: set[Action] = set()
        frontier = [action]
        while frontier:
            users = (user for user in self.rules.users(frontier.pop()) if user in self.starts and user not in found)
            for user in users:
                found.add(user)
                frontier.append(user)
        return found

    def _without(self, gone: set[Action]) -> Board:
        return Board(self.rules, {action: start for action, start in self.starts.items() if action not in gone})

    def _in_order(self, actions: Iterable[Action]) -> tuple[Action, ...]:
        return tuple(sorted(actions, key=lambda action: (self.starts[action], action)))

    # ---- what could come next ------------------------------------------------------------------------------------

    def ready(self, device: int, time: int) -> tuple[Action, ...]:
        """All actions that may be placed at ``time`` of ``device`` now."""
        here = (action for actions in self._waiting_on(device) for action in actions)
        return tuple(action for action in here if self.why_not(device, time, action) is None)

    def choices(self, device: int, time: int) -> tuple[Choice, ...]:
        """For each stage of ``device`` its next forward and next backward, legal at ``time`` or with the reason.

        Next is the lowest micro-batch that may be placed there; if none may, the lowest whose inputs are placed, or the
        lowest that is missing. :meth:`ready` has all that may.
        """
        found = []
        for actions in self._waiting_on(device):
            blocked = {action: self.why_not(device, time, action) for action in actions}
            legal = (action for action in actions if blocked[action] is None)
            supplied = (action for action in actions if self._supplied(action))
            action = next(legal, None) or next(supplied, actions[0])
            violation = blocked[action]
            found.append(Choice(action, None if violation is None else violation.message))
        return tuple(found)

    def earliest(self, action: Action) -> int | None:
        """The first column in which ``action`` may be placed now.

        None while its inputs are not placed, while its device holds as much as it may, and once it is placed.
        """
        if self.rules.unknown(action) is not None or action in self.starts:
            return None
        if not self._supplied(action):
            return None
        device = self.rules.home(action.stage)
        there = max(map(self.end, self.rules.inputs(action)), default=0)
        # A cell becomes free, and memory too, only where an action of this device ends.
        for time in (there, *(end for _, end, _ in self._rows[device] if end > there)):
            if self.why_not(device, time, action) is None:
                return time
        return None

    def ready_anywhere(self) -> tuple[Opening, ...]:
        """Each stage's next forward and backward that could be placed now, at its earliest, in the order of time."""
        found = []
        for device in range(self.rules.devices):
            for actions in self._waiting_on(device):
                times = ((action, self.earliest(action)) for action in actions)
                found += [Opening(device, time, action) for action, time in times if time is not None][:1]
        return tuple(sorted(found, key=lambda opening: (opening.time, opening.device, opening.action)))

    @property
    def dead_end(self) -> str | None:
        """Why nothing that is missing can be placed any more, in a sentence, or None.

        With several stages on a device, one stage's forwards may take all the room that a later stage needs.
        """
        if self.complete or self.ready_anywhere():
            return None
        there = [action for action in self.missing if self._supplied(action)]
        full = [device for device in sorted({self.rules.home(action.stage) for action in there}) if self._full(device)]
        if full:
            limits = listed(f"device {device} holds {held(self.peaks[device])}" for device in full)
            return f"{limits}, which is all it may, and no backward can run: take some forwards back"
        return f"none of {listed(there)} can be placed any more: take something back that stands in the way"

    def _full(self, device: int) -> bool:
        steps = self.holding(device)
        return bool(steps) and steps[-1][1] + 1 > self.rules.capacities[device]

    @cached_property
    def _unplaced(self) -> dict[tuple[int, str], list[int]]:
        """(stage, op) -> its micro-batches that are not placed yet."""
        found: dict[tuple[int, str], list[int]] = {(s, op): [] for s in range(self.rules.stages) for op in "FB"}
        for action in self.missing:
            found[action.stage, action.op].append(action.microbatch)
        return found

    def _waiting_on(self, device: int) -> Iterator[tuple[Action, ...]]:
        """Per stage and op of ``device`` what is not placed yet, the lowest micro-batch first; at least one each."""
        for stage in self.rules.stages_on(device):
            for op in "FB":
                if self._unplaced[stage, op]:
                    yield tuple(Action(stage, op, i) for i in self._unplaced[stage, op])

    def _supplied(self, action: Action) -> bool:
        return all(source in self.starts for source in self.rules.inputs(action))

    # ---- out and in ----------------------------------------------------------------------------------------------

    def timetable(self) -> TimeTable:
        """The grid: each action in the column where it starts, None elsewhere (idle, or still busy)."""
        rows = []
        for row in self._rows:
            cells: list[Action | None] = [None] * (row[-1][0] + 1 if row else 0)
            for start, _, action in row:
                cells[start] = action
            rows.append(tuple(cells))
        return TimeTable(tuple(rows))

    def to_csv(self) -> str:
        """The grid as CSV: a row a device, a column a time slot, each action where it starts. Rules are not in it."""
        return write_csv(self.timetable().rows)

    @classmethod
    def from_csv(cls, text: str, rules: Rules) -> Board:
        """Read what :meth:`to_csv` wrote, or a person did; half-finished and unsound tables too.

        Raises ScheduleParseError, which names row, column and token, for what is no grid under these rules, and
        ConfigurationError for what is not text.
        """
        return cls(rules, read_board(text, rules))

    @classmethod
    def from_schedule(cls, schedule: Schedule, rules: Rules | None = None) -> Board:
        """A sound schedule laid out on a board, each action as early as its order lets it.

        Without ``rules`` all actions take one column, and there is no limit. Raises ScheduleError if it is not sound,
        ConfigurationError if it does not fit the rules' sizes, IllegalMove if it breaks their memory cap.
        """
        if rules is None:
            rules = Rules(schedule.devices, max(schedule.microbatches, 1), max(schedule.chunks, 1))
        _require_fit(schedule, rules)
        require_sound(schedule)
        starts: dict[Action, int] = {}
        free = [0] * rules.devices
        for device, position, edges in schedule.graph.topological():
            action = schedule.programs[device][position]
            assert isinstance(action, Action)
            inputs = (starts[edge.supplier] + rules.duration(edge.supplier) for edge in edges)
            starts[action] = max(free[device], *inputs, 0)
            free[device] = starts[action] + rules.duration(action)
        board = cls(rules, starts)
        if board.violations():
            raise IllegalMove(board.violations()[0])
        return board

    def schedule(self, name: str = "yours") -> Schedule:
        """The order in which a complete board runs, for the runtime; :meth:`violations` says whether it is sound.

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
        programs = tuple(tuple(action for _, _, action in row) for row in self._rows)
        return Schedule(name, programs, self.rules.placement, (1.0,) * self.rules.microbatches)

    def timeline(self, name: str = "yours") -> Timeline:
        """What stands on the board as a Timeline of one unit a column, unfinished boards too.

        Each message arrives when it is sent: whoever starts later than that has been placed later.
        """
        spans = [
            Span(device, position, action, float(start), float(end))
            for device, row in enumerate(self._rows)
            for position, (start, end, action) in enumerate(row)
        ]
        return Timeline(self._order(name), tuple(spans), tuple(self._messages()), clock="drawn")

    def _messages(self) -> list[Message]:
        found = []
        for action in self.starts:
            device = self.rules.home(action.stage)
            for source in self.rules.inputs(action):
                home = self.rules.home(source.stage)
                if source in self.starts and home != device:
                    kind, sent = ACTIVATION if source.op == "F" else GRADIENT, float(self.end(source))
                    found.append(Message(kind, source, action, home, device, sent, sent))
        return sorted(found, key=lambda message: (message.sent, message.source, message.consumer))

    def __str__(self) -> str:
        done = f"{len(self.starts)} of {len(self.rules.actions())} actions"
        return f"{done} in {columns(self.makespan)} ({self.rules})"


def _require_fit(schedule: Schedule, rules: Rules) -> None:
    given = (schedule.devices, schedule.stages, schedule.microbatches)
    wanted = (rules.devices, rules.stages, rules.microbatches)
    if given != wanted:
        raise ConfigurationError(
            f"schedule '{schedule.name}' has {given[0]} devices, {given[1]} stages and {given[2]} micro-batches, the "
            f"board {wanted[0]}, {wanted[1]} and {wanted[2]}; build one with devices={rules.devices}, "
            f"microbatches={rules.microbatches}, chunks={rules.chunks}"
        )
    if schedule.placement != rules.placement:
        raise ConfigurationError(
            f"schedule '{schedule.name}' places its stages otherwise: on a board stage s lives on device s mod p"
        )
    if set(schedule.weights) != {1.0}:
        raise ConfigurationError(
            f"schedule '{schedule.name}' has micro-batches of weights {schedule.weights}; on a board all weigh 1"
        )
    for device, program in enumerate(schedule.programs):
        for slot in program:
            if not isinstance(slot, Action) or slot.op not in "FB":
                raise ConfigurationError(
                    f"schedule '{schedule.name}' runs {format_slot(slot)} on device {device}; a board has F and B, one "
                    "at a time"
                )
