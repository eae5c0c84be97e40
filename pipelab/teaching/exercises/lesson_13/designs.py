"""What lesson 13's designs share: soundness first, then the limit, then how far a table gets towards a good one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from pipelab import view
from pipelab.schedules import Action, Schedule, actions_of
from pipelab.teaching.design.goal import Goal, Rating
from pipelab.teaching.exercises.definition import Case, Finding
from pipelab.teaching.exercises.judging import read_table, unsound

LEVELS = {"sound": None, "half of the way": 0.5, "three quarters": 0.75, "all the way": 1.0}
"""The parts of a design: how far it has to get from a plain table's makespan to a good one's."""
MOST = ("sound", "half of the way", "three quarters")


@dataclass(frozen=True)
class Asked:
    """A design's goal, and the two makespans between which it is placed. ``where`` says where stages live."""

    goal: Goal
    homes: tuple[int, ...]
    plain: float
    good: float
    where: str = "stage r belongs on device r"

    def way(self, makespan: float) -> float:
        """How far a makespan is from the plain one (0) to the good one (1)."""
        if self.good < self.plain:
            return (self.plain - makespan) / (self.plain - self.good)
        return float(makespan <= self.good)  # with one micro-batch there is only one table


def cases_of(settings: Sequence[dict[str, Any]], parts: Sequence[str] = MOST) -> list[Case]:
    """Each setting in each part."""
    return [Case(part, setting) for part in parts for setting in settings]


def judged(
    case: Case, data: Any, what: str, asked: Asked, why: Callable[[Rating], str]
) -> tuple[Finding | None, Schedule | None]:
    """What is wrong with the rows that came back; and the table, if nothing is. ``why`` adds a reason, or ""."""
    goal = asked.goal
    table = read_table(data, what, goal.devices)
    found = _misshapen(table, case, asked)
    if found is not None:
        return found, None
    rating = goal.rate(table)
    picture = partial(view.plot_schedules, [rating.timeline], [f"Yours, {case.words}"], memory=True)
    if not rating.fits:
        r = rating.over_limit[0]
        held = f"device {r} holds {goal.amount(rating.held[r])}, and {goal.limits[r]:g} are allowed"
        return Finding(f"{case.words}: {held}. {why(rating) or _first_too_many(table, r)}", picture), None
    level, way = LEVELS.get(case.part), asked.way(rating.makespan)
    if level is None or way >= level - 1e-9:
        return None, table
    said = (
        f"{case.words}: your table is sound and fits, and takes {rating.makespan:g}. A plain table takes "
        f"{asked.plain:g}, a good one {asked.good:g}, and no order less than {goal.bound:g}. "
        f"You are {max(way, 0):.0%} of the way, and this part asks for {level:.0%}. "
        f"{why(rating) or idle_longest(rating)}"
    )
    return Finding(said, picture), None


def _misshapen(table: Schedule, case: Case, asked: Asked) -> Finding | None:
    """Why a table is none of these stages and micro-batches, or cannot run."""
    m = asked.goal.microbatches
    for device, _, action in table.actions():
        if action.microbatch >= m:
            return Finding(f"{case.words}: device {device} runs {action}, but the micro-batches are 0..{m - 1}.")
        if action.stage >= len(asked.homes):
            stages = len(asked.homes)
            return Finding(f"{case.words}: device {device} runs {action}, but the stages are 0..{stages - 1}.")
        if asked.homes[action.stage] != device:
            return Finding(f"{case.words}: {action} stands on device {device}. Here {asked.where}.")
        if action.op in "RU":
            return Finding(f"{case.words}: device {device} runs {action}. A design here has F, B, I and W.")
    found = unsound(table, case)
    if found is None and table.forward_only:
        return Finding(f"{case.words}: your table has no backwards.")
    if found is None and (table.microbatches, table.stages) != (m, len(asked.homes)):
        return Finding(
            f"{case.words}: your table has {table.microbatches} micro-batches on {table.stages} stages, and there are "
            f"{m} on {len(asked.homes)}."
        )
    return found


def ops(table: Schedule) -> list[str]:
    """The ops of each device in order: ``"FFIFIWW"``."""
    return ["".join(action.op for slot in row for action in actions_of(slot)) for row in table.programs]


def _first_too_many(table: Schedule, device: int) -> str:
    """How many forwards a device takes in before it lets one go."""
    row = ops(table)[device]
    first = next((k for k, op in enumerate(row) if op in "BW"), len(row))
    return (
        f"It runs {row[:first].count('F')} F before its first {row[first : first + 1] or 'B'}. A micro-batch is held "
        "until its B or W is over."
    )


def idle_longest(rating: Rating) -> str:
    """The longest time that a device idles, and why."""
    gap = max(rating.timeline.gaps(), key=lambda gap: (gap.end - gap.start, -gap.start))
    return f"The longest gap is from t = {gap.start:g} to t = {gap.end:g}: {gap.sentence}."


def w_at_once(table: Schedule) -> bool:
    """Whether each W stands right behind its I, or all backwards are whole."""
    for row in table.programs:
        actions = [action for slot in row for action in actions_of(slot)]
        for before, action in pairwise(actions):
            if action.op == "W" and before != Action(action.stage, "I", action.microbatch):
                return False
    return True
