"""Reading a board from text. What is readable is read, sound or not; what is damaged is refused in a sentence."""

from __future__ import annotations

from typing import NoReturn

from pipelab.errors import ConfigurationError, ScheduleParseError
from pipelab.schedules.action import Action, Slot, format_slot
from pipelab.schedules.text import read_csv
from pipelab.teaching.board.rules import Rules

__all__ = ["read_board"]


def read_board(text: str, rules: Rules) -> dict[Action, int]:
    """Action -> the column in which it stands, from CSV: one row a device, one column a time slot.

    Raises ScheduleParseError naming row (device), column and token, and ConfigurationError for what is not text.
    """
    if not isinstance(text, str):
        raise ConfigurationError(f"a board is read from text, got {type(text).__name__}; try Path(name).read_text()")
    rows = read_csv(text)
    _require_a_row_each(len(rows), rules)
    starts: dict[Action, int] = {}
    for device, row in enumerate(rows):
        free, last = 0, None
        for time, slot in enumerate(row):
            if slot is None:
                continue
            action = _readable(slot, device, time, rules, starts)
            if time < free:
                busy = f"{last} runs from t = {free - rules.duration(last)} to t = {free}" if last is not None else ""
                _refuse(f"{action} starts at t = {time}, but {busy}", device, time, action)
            starts[action] = time
            free, last = time + rules.duration(action), action
    return starts


def _require_a_row_each(given: int, rules: Rules) -> None:
    if given == rules.devices:
        return
    rows = "1 row" if given == 1 else f"{given} rows"
    wanted = "1 device" if rules.devices == 1 else f"{rules.devices} devices"
    hint = 'an idle device needs a row too, written ""' if given < rules.devices else "give one row per device"
    problem = f"the text has {rows}, but the board has {wanted}; {hint}"
    raise ScheduleParseError(problem, min(given, rules.devices), 0, "")


def _readable(slot: Slot, device: int, time: int, rules: Rules, starts: dict[Action, int]) -> Action:
    """The one action in ``slot``, if this board can show it there."""
    if not isinstance(slot, Action):
        _refuse(f"{format_slot(slot)} is fused; on a board each action has cells of its own", device, time, slot)
    problem = rules.unknown(slot)
    home = None if problem is not None else rules.home(slot)
    if problem is None and home != device:
        problem = f"{slot} is on device {device}, but its place is on device {home}"
    if problem is None and slot in starts:
        problem = f"{slot} is here a second time; it is already on device {device} at t = {starts[slot]}"
    if problem is None and time + rules.duration(slot) > rules.columns:
        problem = f"{slot} does not fit on the board, whose columns are 0..{rules.columns - 1}"
    if problem is not None:
        _refuse(problem, device, time, slot)
    return slot


def _refuse(problem: str, row: int, column: int, slot: Slot) -> NoReturn:
    raise ScheduleParseError(problem, row, column, format_slot(slot))
