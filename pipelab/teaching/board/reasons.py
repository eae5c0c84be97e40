"""Why an action may not stand where a learner wants it, and what is wrong with a board that was loaded.

Codes are those of the checker (``pipelab.schedules.CODES``) and three that only a board knows, in ``BOARD_CODES``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipelab.schedules.action import Action
from pipelab.schedules.checker import Violation
from pipelab.teaching.board.grid import Grid
from pipelab.teaching.board.words import columns, held

__all__ = ["BOARD_CODES", "over_limit", "violations", "why_not"]

BOARD_CODES = {
    "occupied": "an action where another one stands",
    "memory": "an action that makes a device hold more micro-batches than its limit",
    "off-board": "an action before the first column or after the last",
}


@dataclass(frozen=True, slots=True)
class _Move:
    """``action`` on ``device`` from column ``time`` on."""

    grid: Grid
    device: int
    time: int
    action: Action

    @property
    def end(self) -> int:
        return self.time + self.grid.rules.duration(self.action)

    def refuse(self, code: str, blocker: Action | None, sentence: str) -> Violation:
        return Violation(code, self.device, self.time, self.action, blocker, sentence)


def why_not(grid: Grid, device: int, time: int, action: Action) -> Violation | None:
    """The most helpful reason why ``action`` may not stand at ``time`` of ``device``, or None if it may."""
    move = _Move(grid, device, time, action)
    return next((found for reason in _REASONS if (found := reason(move)) is not None), None)


def _unknown(move: _Move) -> Violation | None:
    rules = move.grid.rules
    problem = rules.unknown(move.action)
    if problem is None and not 0 <= move.device < rules.devices:
        problem = f"there is no device {move.device}; devices are 0..{rules.devices - 1}"
    return None if problem is None else move.refuse("unknown", None, problem)


def _misplaced(move: _Move) -> Violation | None:
    home = move.grid.rules.home(move.action)
    if move.device == home:
        return None
    what = f"stage {move.action.stage}"
    if move.grid.rules.layout == "two-way":
        what += f" of micro-batch {move.action.microbatch}"
    sentence = f"{move.action} runs on device {home}, not on device {move.device}, because {what} is there"
    return move.refuse("misplaced", None, sentence)


def _already(move: _Move) -> Violation | None:
    start = move.grid.starts.get(move.action)
    if start is None:
        return None
    sentence = f"{move.action} is already on device {move.device} at t = {start}; take it away there first"
    return move.refuse("duplicate", move.action, sentence)


def _off_board(move: _Move) -> Violation | None:
    last = move.grid.rules.columns
    if move.time < 0:
        return move.refuse("off-board", None, f"{move.action} at t = {move.time}: time begins at t = 0")
    if move.end > last:
        sentence = (
            f"{move.action} would end at t = {move.end}, but the board ends at t = {last}: even one action at a time "
            f"takes only {columns(last // 2)}"
        )
        return move.refuse("off-board", None, sentence)
    return None


def _occupied(move: _Move) -> Violation | None:
    other = move.grid.overlapping(move.device, move.time, move.end)
    if other is None:
        return None
    start = move.grid.starts[other]
    if start < move.time:
        sentence = f"device {move.device} runs {other} from t = {start} and is free at t = {move.grid.end(other)}"
    elif start == move.time:
        sentence = f"{other} is already at t = {start} on device {move.device}"
    else:
        sentence = f"{move.action} takes {columns(move.end - move.time)}, and {other} is in the way at t = {start}"
    return move.refuse("occupied", other, sentence)


def _inputs(move: _Move) -> Violation | None:
    grid, action = move.grid, move.action
    needed = grid.rules.inputs(action)
    for source in needed:
        if source not in grid.starts:
            home = grid.rules.home(source)
            owner = "this device" if home == move.device else f"device {home}"
            return move.refuse("no-input", source, f"{action} needs {source}, which is not placed yet ({owner})")
    late = max(needed, key=grid.end, default=None)
    if late is None or grid.end(late) <= move.time:
        return None
    home = grid.rules.home(late)
    who, code = ("this device", "order") if home == move.device else (f"device {home}", "too-early")
    return move.refuse(code, late, f"{action} needs {late}, which {who} finishes only at t = {grid.end(late)}")


def _leaned_on(move: _Move) -> Violation | None:
    """What stands already and needs this action begins too early: only on a board that was loaded."""
    for user in move.grid.rules.users(move.action):
        start = move.grid.starts.get(user)
        if start is not None and start < move.end:
            sentence = (
                f"{move.action} would end at t = {move.end}, but {user} needs it and already starts at t = {start}"
            )
            return move.refuse("too-early", user, sentence)
    return None


def _memory(move: _Move) -> Violation | None:
    grid, rules = move.grid, move.grid.rules
    capacity = rules.capacities[move.device]
    if move.action.op != "F" or rules.microbatches * rules.chunks <= capacity:
        return None
    over = rules.over(move.action)
    until = grid.end(over) if over in grid.starts else rules.columns  # no backward: held forever
    steps = grid.holding(move.device)
    now = next((count for t, count in reversed(steps) if t <= move.time), 0)
    later = ((t, count) for t, count in steps if move.time < t < until)
    crowded = next(((t, count) for t, count in ((move.time, now), *later) if count + 1 > capacity), None)
    if crowded is None:
        return None
    t, count = crowded
    limit, what = rules.limits[move.device], "W" if "W" in rules.ops else "backward"
    so_many = held((count + 1) / rules.chunks)
    when, first = f"at t = {t}", "first"
    if t > move.time:  # what stands there already was placed before this one
        when, first = f"at t = {t}, when {grid.at(move.device, t)} begins", "before that"
    sentence = f"device {move.device} would hold {so_many} {when}, but its limit is {limit:g}: run a {what} {first}"
    return move.refuse("memory", None, sentence)


_REASONS: tuple[Callable[[_Move], Violation | None], ...] = (
    _unknown,
    _misplaced,
    _already,
    _off_board,
    _occupied,
    _inputs,
    _leaned_on,
    _memory,
)


# ---- a board as it stands --------------------------------------------------------------------------------------------


def violations(grid: Grid) -> Iterator[Violation]:
    """Everything that is wrong with what stands on ``grid``."""
    for action, start in grid.starts.items():
        device = grid.rules.home(action)
        for source in grid.rules.inputs(action):
            begins = f"device {device} starts {action} at t = {start}, but"
            home = grid.rules.home(source)
            if source not in grid.starts:
                sentence = f"{begins} {source}, which it needs, is not placed"
                yield Violation("no-input", device, start, action, source, sentence)
            elif grid.end(source) > start:
                who, code = ("it", "order") if home == device else (f"device {home}", "too-early")
                sentence = f"{begins} {who} finishes {source} only at t = {grid.end(source)}"
                yield Violation(code, device, start, action, source, sentence)
    yield from over_limit(grid)


def over_limit(grid: Grid) -> Iterator[Violation]:
    """Each forward that begins while its device holds as much as it may."""
    for device, capacity in enumerate(grid.rules.capacities):
        for t, count in grid.holding(device):
            action = grid.at(device, t)
            if count > capacity and action is not None and action.op == "F" and grid.starts[action] == t:
                so_many = held(count / grid.rules.chunks)
                limit = grid.rules.limits[device]
                sentence = (
                    f"device {device} holds {so_many} from t = {t}, when {action} begins, but its limit is {limit:g}"
                )
                yield Violation("memory", device, t, action, None, sentence)
