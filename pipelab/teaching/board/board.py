"""The board of "Draw your own": actions placed on a grid of devices and columns of time, one legal move at a time.

A board never changes: a move makes a new one, or says why it cannot be made. So undoing is keeping the old one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from pipelab.errors import ConfigurationError, PipelabError
from pipelab.schedules.action import Action, format_slot
from pipelab.schedules.checker import Violation, require_sound
from pipelab.schedules.schedule import Schedule
from pipelab.teaching.board import reasons
from pipelab.teaching.board.grid import Grid
from pipelab.teaching.board.rules import LAYOUTS, Rules
from pipelab.teaching.board.text import read_board
from pipelab.teaching.board.words import counted, held, listed

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
            said += f", and with it {listed(self.leaning)}, which need{'' if len(self.leaning) > 1 else 's'} it"
        if self.crowded:
            go = "go" if len(self.crowded) > 1 else "goes"
            why = "without those backwards a device would hold more than its limit"
            said += f". {listed(self.crowded)} {go} too: {why}"
        return said


class Board(Grid):
    """What stands where, with what may come next: a grid whose moves keep to the rules.

    What is wrong with a board that was loaded, :meth:`violations` lists; :meth:`place` never makes a fault.
    """

    @classmethod
    def empty(cls, rules: Rules) -> Board:
        """A board with nothing on it."""
        return cls(rules)

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
        The memory cap is looked at over time. A forward is in flight until its backward ends, or forever while that is
        not placed, and it may be too much for what stands later already.
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

        All that needs it goes with it. Where a backward goes, its micro-batch is held forever, and later forwards of
        its device may be too many. Those go too, the first one over the limit first.
        """
        removal = self.removal(action)
        return removal.board, removal.also

    def removal(self, action: Action) -> Removal:
        """As :meth:`remove`, with the two kinds of what went told apart and in a sentence."""
        if action not in self.starts:
            there = f"the board has {counted(len(self.starts), 'action')}" if self.starts else "the board is empty"
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
        device = self.rules.home(action)
        there = max(map(self.end, self.rules.inputs(action)), default=0)
        # A cell becomes free, and memory too, only where an action of this device ends.
        for time in (there, *(end for _, end, _ in self.rows[device] if end > there)):
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
        full = [device for device in sorted({self.rules.home(action) for action in there}) if self._full(device)]
        if full:
            limits = listed(f"device {device} holds {held(self.peaks[device])}" for device in full)
            return f"{limits}, which is the limit, and no backward can run: take some forwards away"
        return f"{listed(there)} can no longer be placed: take away what is in the way"

    def _full(self, device: int) -> bool:
        steps = self.holding(device)
        return bool(steps) and steps[-1][1] + 1 > self.rules.capacities[device]

    @cached_property
    def _unplaced(self) -> dict[tuple[int, int, str], list[Action]]:
        """(device, stage, op) -> what is not placed yet."""
        found: dict[tuple[int, int, str], list[Action]] = {}
        for action in self.missing:
            found.setdefault((self.rules.home(action), action.stage, action.op), []).append(action)
        return found

    def _waiting_on(self, device: int) -> Iterator[tuple[Action, ...]]:
        """Per stage and op of ``device`` what is not placed yet, the lowest micro-batch first; at least one each."""
        for stage in self.rules.stages_on(device):
            for op in self.rules.ops:
                if (device, stage, op) in self._unplaced:
                    yield tuple(self._unplaced[device, stage, op])

    def _supplied(self, action: Action) -> bool:
        return all(source in self.starts for source in self.rules.inputs(action))

    # ---- from a text or a schedule -----------------------------------------------------------------------------

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
            rules = _rules_of(schedule)
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


def _rules_of(schedule: Schedule) -> Rules:
    p, m, v = schedule.devices, max(schedule.microbatches, 1), max(schedule.stages // schedule.devices, 1)
    backward = (1, 1) if "I" in schedule.ops else 1
    fitting = {"v": v == 2, "two-way": v == 1 and p % 2 == 0}
    layouts = (Rules(p, m, v, 1, backward, layout=name) for name, fits in fitting.items() if fits)
    return next((one for one in layouts if one.placement == schedule.placement), Rules(p, m, v, 1, backward))


def _require_fit(schedule: Schedule, rules: Rules) -> None:
    given = (schedule.devices, schedule.stages, schedule.microbatches)
    wanted = (rules.devices, rules.stages, rules.microbatches)
    if given != wanted:
        raise ConfigurationError(
            f"schedule '{schedule.name}' has {given[0]} devices, {given[1]} stages and {given[2]} micro-batches, the "
            f"board {wanted[0]}, {wanted[1]} and {wanted[2]}; build one with devices={rules.devices}, "
            f"microbatches={rules.microbatches}, chunks={rules.chunks}"
        )
    homes = {(device, rules.home(action)) for device, _, action in schedule.actions()}
    if schedule.placement != rules.placement or any(device != home for device, home in homes):
        raise ConfigurationError(
            f"schedule '{schedule.name}' places its stages differently: on this board {LAYOUTS[rules.layout]}"
        )
    if set(schedule.weights) != {1.0}:
        raise ConfigurationError(
            f"schedule '{schedule.name}' has micro-batches of weights {schedule.weights}; on a board all weigh 1"
        )
    for device, program in enumerate(schedule.programs):
        for slot in program:
            if not isinstance(slot, Action) or slot.op not in rules.ops:
                raise ConfigurationError(
                    f"schedule '{schedule.name}' runs {format_slot(slot)} on device {device}; this board has only "
                    f"{listed(rules.ops)}, one at a time"
                )
