"""Exercise of lesson 2: write GPipe, and train with it."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

from pipelab.schedules import Schedule, build_schedule
from pipelab.schedules.action import actions_of
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.judging import read_table, trained
from pipelab.teaching.exercises.lesson_02.serial import serial_table
from pipelab.teaching.exercises.lesson_02.tables import picture_of, sized, stands_for, unit_run


def _gpipe_drawn(random: Random) -> list[Case]:
    few = [(p, random.randint(1, p - 1)) for p in (random.randint(3, 16), random.randint(3, 16))]
    many = [(p, random.randint(p, 48)) for p in (random.randint(1, 8), random.randint(2, 16))]
    few.append((random.randint(14, 18), random.randint(11, 13)))  # numbers of two digits
    many.append((random.randint(11, 14), random.randint(14, 30)))
    return [*sized("m < p", *few), *sized("m >= p", *many)]


def _gpipe_ask(call: Call, case: Case) -> Any:
    return call("gpipe", case["p"], case["m"])


def _gpipe_judge(case: Case, data: Any) -> Finding | None:
    schedule = read_table(data, f"{case.words}: gpipe", case["p"])
    finding = stands_for(schedule, case) or _not_gpipe(schedule, case)
    if finding is None and case.part == "gradients":
        return trained(schedule, case)
    return finding


def _not_gpipe(schedule: Schedule, case: Case) -> Finding | None:
    """A sound table: is it GPipe's?"""
    p, m = case["p"], case["m"]
    picture = partial(picture_of, schedule, case)
    start = f"{case.words}: sound, but not GPipe: "
    for device, program in enumerate(schedule.programs):
        ops = [actions_of(slot)[0] for slot in program]
        first = next(k for k, action in enumerate(ops) if action.op == "B")
        later = next((action for action in ops[first:] if action.op == "F"), None)
        if later is not None:
            return Finding(
                start + f"device {device} runs {ops[first]} before its forward {later}. Under GPipe a device runs all "
                f"its forwards before its first backward. {_family(schedule, p, m)}",
                picture,
            )
        wrong = next((k for k in range(m) if ops[k].microbatch != k), None)
        if wrong is not None:
            return Finding(
                start + f"device {device} runs {ops[wrong]} as forward number {wrong}, counted from 0. Micro-batches "
                "enter in the order of their numbers.",
                picture,
            )
    orders = [[actions_of(slot)[0].microbatch for slot in program[m:]] for program in schedule.programs]
    if orders[0] not in (list(range(m)), list(range(m))[::-1]) or any(order != orders[0] for order in orders):
        odd = next((r for r in range(p) if orders[r] != orders[0]), 0)
        theirs = f"device {odd} runs its backwards in the order {_listed(orders[odd])}"
        other = f", device 0 in the order {_listed(orders[0])}" if odd else ""
        return Finding(
            start + f"{theirs}{other}. All devices have to go up or down through the micro-batches alike, or they wait "
            f"for one another. Your table takes {unit_run(schedule).makespan:g} units of time, GPipe takes "
            f"{2 * (m + p - 1)}.",
            picture,
        )
    return None


def _listed(order: list[int]) -> str:
    return ", ".join(map(str, order[:6])) + (", ..." if len(order) > 6 else "")


def _family(schedule: Schedule, p: int, m: int) -> str:
    if schedule.programs == build_schedule("1f1b", p, m).programs:
        return "This is 1F1B, the subject of lesson 3."
    if schedule.programs == tuple(map(tuple, serial_table(p, m))):
        return f"This is the serial run, {2 * p * m} units of time: nothing overlaps."
    return ""


EXERCISE = Exercise(
    name="gpipe",
    lesson="02_gpipe",
    title="GPipe",
    answers=("gpipe",),
    parts={"m < p": 1, "m >= p": 1, "gradients": 1},
    visible=[
        *sized("m < p", (2, 1), (3, 2), (4, 1), (5, 3)),
        *sized("m >= p", (1, 1), (1, 3), (2, 2), (2, 3), (4, 4), (3, 7)),
        *sized("gradients", (4, 6)),
    ],
    drawn=_gpipe_drawn,
    ask=_gpipe_ask,
    judge=_gpipe_judge,
)
