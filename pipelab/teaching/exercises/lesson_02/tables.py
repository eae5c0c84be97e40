"""What the tables of lesson 2 share: cases by size, what a table has to hold, its run and its picture."""

from __future__ import annotations

from typing import Any

from pipelab import view
from pipelab.schedules import Action, Schedule, format_slot
from pipelab.schedules.action import actions_of
from pipelab.schedules.schedule import Program
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.definition import Case, Finding
from pipelab.teaching.exercises.judging import unsound
from pipelab.timeline import Timeline


def sized(part: str, *sizes: tuple[int, int], **more: Any) -> list[Case]:
    """Cases of (p, m)."""
    return [Case(part, {"p": p, "m": m, **more}) for p, m in sizes]


def stands_for(schedule: Schedule, case: Case) -> Finding | None:
    """Whether the table holds exactly one F and one B for each of m micro-batches on each of p stages, and can run."""
    m = case["m"]
    found = {action.microbatch for _, _, action in schedule.actions()}
    start = f"{case.words}: "
    if found == set(range(1, m + 1)):
        return Finding(start + f"your micro-batches are numbered 1 to {m}. Here counting starts at 0: 0 to {m - 1}.")
    missing, strange = sorted(set(range(m)) - found), sorted(found - set(range(m)))
    numbered = "There is only micro-batch 0" if m == 1 else f"Their numbers go from 0 to {m - 1}"
    if missing:
        return Finding(start + f"micro-batch {missing[0]} is nowhere in your table. {numbered}.")
    if strange:
        return Finding(start + f"your table runs micro-batch {strange[0]}. {numbered}.")
    for device, program in enumerate(schedule.programs):
        finding = _foreign(device, program)
        if finding:
            return Finding(start + finding)
    return unsound(schedule, case)


def _foreign(device: int, program: Program) -> str:
    """What stands in a row and does not belong there, or is not there at all; "" if nothing is wrong."""
    for slot in program:
        if not isinstance(slot, Action):
            return f"device {device} runs {format_slot(slot)}. Write one action per entry."
        if slot.stage != device:
            return (
                f"device {device} runs {slot}, but device {device} holds stage {device}. The first number of an action "
                "is its stage."
            )
        if slot.op not in "FB":
            return f"device {device} runs {slot}. This schedule has only F and B."
    lacking = next((op for op in "FB" if op not in [action.op for slot in program for action in actions_of(slot)]), "")
    if lacking:
        return f"device {device} runs no {'forward' if lacking == 'F' else 'backward'} at all."
    return ""


def unit_run(schedule: Schedule) -> Timeline:
    """The table's timeline, tF = tB = 1."""
    return simulate(schedule, Costs(forward=1, backward=1))


def picture_of(schedule: Schedule, case: Case) -> view.Picture:
    """The learner's table as a timeline, tF = tB = 1."""
    return view.plot_timeline(unit_run(schedule), title=f"Your table, {case.words}", phases=False)
