"""What judges share: reading plain data as numbers and as tables, and saying in words how a table differs.

A reader raises Refused with the sentence for data of the wrong kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pipelab import view
from pipelab.errors import PipelabError
from pipelab.schedules import Action, Schedule, check_schedule, format_slot
from pipelab.teaching.exercises.definition import Case, Finding, Refused

__all__ = [
    "as_lists",
    "close",
    "difference",
    "kind_of",
    "numbers",
    "read_number",
    "read_table",
    "read_whole",
    "trained",
    "unsound",
]

_KINDS = {"set": "a set", "tensor": "an array or tensor", "csv": "a Schedule"}


def kind_of(data: Any) -> str:
    """What plain data was, in words: ``"a list"``, ``"text '4'"``."""
    if isinstance(data, dict):
        if "other" in data:
            return f"{data['other']} {data.get('shown', '')}".strip()
        return next((words for key, words in _KINDS.items() if key in data), "a dict")
    if isinstance(data, str):
        return f"text {data[:40]!r}"
    if isinstance(data, list):
        return "a list"
    return f"{data!r}"


def as_lists(data: Any) -> Any:
    """Plain data with arrays as lists, at the top and inside lists."""
    if isinstance(data, dict) and isinstance(data.get("tensor"), list):
        data = data["tensor"]
    return [as_lists(item) for item in data] if isinstance(data, list) else data


def read_number(data: Any, what: str) -> float:
    """A finite number. ``what`` names it in the sentence: ``"p = 2, m = 3: bubble_fraction"``."""
    if isinstance(data, bool) or not isinstance(data, int | float):
        raise Refused(f"{what} should be a number, it is {kind_of(data)}")
    try:
        finite = math.isfinite(data)
    except OverflowError:
        raise Refused(f"{what} is a number beyond all bounds, of more than three hundred digits") from None
    if not finite:
        raise Refused(f"{what} is {data}, not a finite number")
    return data


def read_whole(data: Any, what: str) -> int:
    """A whole number; 4.0 is one too."""
    number = read_number(data, what)
    if number != int(number):
        raise Refused(f"{what} should be a whole number, it is {number!r}")
    return int(number)


def numbers(data: Any, what: str, count: int | None = None) -> list[float]:
    """A list of finite numbers, ``count`` of them where given."""
    data = as_lists(data)
    if not isinstance(data, list):
        raise Refused(f"{what} should be a list of numbers, it is {kind_of(data)}")
    if count is not None and len(data) != count:
        raise Refused(f"{what} should have {count} entries, it has {len(data)}")
    return [read_number(item, f"{what}, entry {k},") for k, item in enumerate(data)]


def close(given: float, wanted: float, tolerance: float = 1e-6) -> bool:
    """Whether two numbers agree up to rounding."""
    return math.isclose(given, wanted, rel_tol=tolerance, abs_tol=tolerance * 1e-3)


def read_table(data: Any, what: str, devices: int) -> Schedule:
    """Rows of actions, one per device, as a Schedule. ``what`` names the function that made them."""
    if isinstance(data, dict) and "csv" in data:
        data = [line.split(",") for line in str(data["csv"]).splitlines()]
    data = as_lists(data)  # rows may be numpy arrays of texts
    if not isinstance(data, list):
        raise Refused(f"{what} should return a list with one row of actions per device, it returned {kind_of(data)}")
    if len(data) != devices:
        raise Refused(f"{what} should return {devices} rows, one per device; it returned {len(data)}")
    if any(not isinstance(row, list) for row in data):
        strange = next(row for row in data if not isinstance(row, list))
        raise Refused(f"{what}: each row should be a list of actions such as '0F0', one is {kind_of(strange)}")
    try:
        return Schedule.from_rows(data, name="yours")
    except PipelabError as error:
        raise Refused(f"{what}: {error}") from None


def unsound(schedule: Schedule, case: Case) -> Finding | None:
    """The checker's first reason against ``schedule``, the place framed; None if it is sound."""
    violations = check_schedule(schedule)
    if not violations:
        return None
    # What is missing shows as its consequences too; the earliest place in the table comes first.
    first = min(violations, key=lambda v: (math.inf if v.position is None else v.position, v.device))
    places = sorted(view.places_of(schedule, [first]))
    return Finding(f"{case.words}: {first.message}.", partial(_framed, schedule, case, places))


def trained(schedule: Schedule, case: Case) -> Finding | None:
    """Train the 48-layer model, a narrow one, with ``schedule``: the finding if its gradients are wrong."""
    from pipelab.models import TransformerLM  # torch is loaded by what trains alone
    from pipelab.teaching.design.trial import try_schedule

    trial = try_schedule(schedule, steps=1, batch=24, model=partial(TransformerLM, layers=48, width=16, heads=2))
    if trial.right:
        return None
    return Finding(f"{case.words}: the 48-layer model trained with your rows, but its gradients are wrong. {trial}")


def difference(
    given: Schedule, wanted: Sequence[Sequence[str | Action]], case: Case, why: Callable[[int, int, str, str], str]
) -> Finding | None:
    """The first place where ``given`` departs from ``wanted``, the earliest in any device's order.

    ``why(device, position, given, wanted)`` adds the reason in the field's words; a slot that is not there is ``""``.
    """
    rows = [[format_slot(slot) for slot in program] for program in given.programs]
    truth = [[str(action) for action in row] for row in wanted]
    for position in range(max(map(len, (*rows, *truth)), default=0)):
        for device in range(len(truth)):
            mine, theirs = _at(rows[device], position), _at(truth[device], position)
            if mine != theirs:
                text = f"{case.words}: device {device} {_does(mine)} at place {position} of its order. "
                return Finding(
                    text + why(device, position, mine, theirs),
                    partial(_framed, given, case, [(device, position)] if mine else []),
                )
    return None


def _at(row: Sequence[str], position: int) -> str:
    return row[position] if position < len(row) else ""


def _framed(schedule: Schedule, case: Case, places: Sequence[tuple[int, int]]) -> view.Picture:
    note = "Framed: the place in question." if places else ""
    return view.plot_table(schedule, title=f"Your table, {case.words}", marked=places, note=note)


def _does(slot: str) -> str:
    return f"runs {slot}" if slot else "has nothing left to run"
