"""Schedules without a flush: weights change while micro-batches are on their way.

The table lists the updates, ``{stage}U{i}``. The k-th update of a stage makes version k of its weights, and version 0
is what it began with. ``Updating.rule`` says which version a forward uses; its backward uses the same one. Such a table
has no end: each step adds m micro-batches (:func:`over`), and what a step runs is a part of it (:func:`part`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelab.errors import ConfigurationError
from pipelab.schedules.action import Action, Slot, Updating, actions_of
from pipelab.schedules.reserved import reserved

if TYPE_CHECKING:
    from pipelab.schedules.schedule import Schedule

__all__ = [
    "Part",
    "Updating",
    "ages",
    "groups",
    "one_f_one_b_with_updates",
    "over",
    "part",
    "steps_in_flight",
    "versions",
]


@reserved
def one_f_one_b_with_updates(devices: int, microbatches: int, every: int = 1) -> list[list[Action]]:
    """1F1B's order, and a U after each backward that completes a group of ``every``."""
    rows = []
    for r in range(devices):
        ahead = min(devices - 1 - r, microbatches)
        row = [Action(r, "F", i) for i in range(ahead)]
        for i in range(microbatches):
            if ahead + i < microbatches:
                row.append(Action(r, "F", ahead + i))
            row.append(Action(r, "B", i))
            if (i + 1) % every == 0:
                row.append(Action(r, "U", i))
        rows.append(row)
    return rows


@reserved
def versions(schedule: Schedule) -> dict[Action, int]:
    """The version of its stage's weights that each forward of a table with updates uses."""
    rule = schedule.updating or Updating()
    newest = _newest(schedule)
    if rule.rule == "delayed":
        return {forward: max(forward.microbatch // rule.every - 1, 0) for forward in newest}
    if rule.rule == "input":
        return {forward: newest.get(Action(0, "F", forward.microbatch), 0) for forward in newest}
    return newest


@reserved
def ages(schedule: Schedule) -> dict[Action, int]:
    """By how many updates the version that each forward uses is behind the newest that is there when it begins."""
    used = versions(schedule)
    return {forward: newest - used[forward] for forward, newest in _newest(schedule).items()}


def groups(schedule: Schedule) -> list[list[int]]:
    """Which micro-batches' gradients go into one update, in the order of the last stage's updates."""
    found: list[list[int]] = [[]]
    last = schedule.stages - 1
    for *_, action in schedule.actions():
        if action.stage == last and action.op in "BW":
            found[-1].append(action.microbatch)
        elif action.stage == last and action.op == "U":
            found.append([])
    return [group for group in found if group]


def _newest(schedule: Schedule) -> dict[Action, int]:
    """How often its stage has been updated before each forward."""
    found: dict[Action, int] = {}
    for program in schedule.programs:
        count: dict[int, int] = {}
        for action in (action for slot in program for action in actions_of(slot)):
            if action.op == "U":
                count[action.stage] = count.get(action.stage, 0) + 1
            elif action.op == "F":
                found[action] = count.get(action.stage, 0)
    return found


@dataclass(frozen=True)
class Part:
    """What one step runs of ``whole``: on device r the slots ``begin[r]`` to ``end[r] - 1``.

    ``first`` is the first micro-batch that comes in with this step.
    """

    whole: Schedule
    begin: tuple[int, ...]
    end: tuple[int, ...]
    first: int


@reserved
def over(schedule: Schedule, steps: int) -> Schedule:
    """The table of ``steps`` steps of a schedule without a flush, with nothing left on its way at their end.

    >>> over(build_schedule("pipedream", devices=2, microbatches=2), 2).microbatches
    4
    """
    updating = _endless(schedule)
    if steps < 1:
        raise ConfigurationError(f"a table is of one step or more, got {steps}; try 1")
    made = schedule.kept.get(("over", steps))
    if made is None:
        m, p = schedule.microbatches * steps, schedule.devices
        rows = one_f_one_b_with_updates(p, m, updating.every)
        made = _schedule(schedule, rows, m)
        schedule.kept["over", steps] = made
    assert isinstance(made, type(schedule))
    return made


def steps_in_flight(schedule: Schedule) -> int:
    """How many steps back a micro-batch may have come in that is still on its way when a step ends, or 1."""
    return max(1, -(-(schedule.devices - 1) // schedule.microbatches))


def part(schedule: Schedule, before: int, *, drain: bool = False) -> Schedule:
    """What one more step runs, after ``before`` steps since the pipeline was last empty.

    Its micro-batches are counted from the first that may still be on its way: ``steps_in_flight`` steps earlier.
    ``drain``: instead of a step, what is left to do until the pipeline is empty.
    """
    _endless(schedule)
    before = min(before, steps_in_flight(schedule))
    key = ("part", before, drain)
    if key not in schedule.kept:
        m = schedule.microbatches
        whole = over(schedule, before if drain else before + 1)
        begin = _where(schedule, before)
        end = tuple(map(len, whole.programs)) if drain else _where(schedule, before + 1)
        rows = [row[a:b] for row, a, b in zip(whole.programs, begin, end, strict=True)]
        made = _schedule(schedule, rows, whole.microbatches)
        made.graph.kept["part"] = Part(whole, begin, end, before * m)
        schedule.kept[key] = made
    found: Schedule = schedule.kept[key]
    return found


def _where(schedule: Schedule, before: int) -> tuple[int, ...]:
    """On each device, how many slots come before the forwards of the step after ``before`` steps."""
    first = before * schedule.microbatches
    programs = over(schedule, before + 1).programs
    return tuple(
        next(k for k, slot in enumerate(row) for a in actions_of(slot) if a.op == "F" and a.microbatch == first)
        for row in programs
    )


def _schedule(like: Schedule, rows: Sequence[Sequence[Slot]], microbatches: int) -> Schedule:
    weights = like.weights * (microbatches // like.microbatches)
    made = type(like)(like.name, tuple(map(tuple, rows)), like.placement, weights, like.updating)
    return made.with_recompute() if "R" in like.ops else made


def _endless(schedule: Schedule) -> Updating:
    if schedule.updating is None:
        raise ConfigurationError(
            f"schedule '{schedule.name}' is no schedule without a flush; build_schedule knows 'pipedream', "
            "'vertical-sync' and '2bw'"
        )
    return schedule.updating
