"""Exercise of lesson 3: write 1F1B, and train with it."""

from __future__ import annotations

import re
from functools import partial
from random import Random
from typing import Any

from pipelab.schedules import Action, Schedule, actions_of
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import difference, read_table, trained, unsound
from pipelab.teaching.exercises.lesson_03.beside_1f1b import beside, drawn_sizes, right_table, sized, worse


def _drawn_tables(random: Random) -> list[Case]:
    p = random.choice((2, 3, 4, 6))
    return [*drawn_sizes(random), Case("gradients", {"p": p, "m": random.choice((8, 12))})]


def _ask_table(call: Call, case: Case) -> Any:
    return call("one_f_one_b", case["p"], case["m"])


def _judge_table(case: Case, data: Any) -> Finding | None:
    p, m = case["p"], case["m"]
    _refuse_negative(data, case)
    table = read_table(data, f"one_f_one_b({p}, {m})", p)
    strange = next(((d, a) for d, _, a in table.actions() if a.microbatch >= m), None)
    if strange is not None:
        device, action = strange
        return Finding(
            f"{case.words}: device {device} runs {action}, but the micro-batches are 0..{m - 1}. With m < p, p - 1 - r "
            "can be more than m, and a device runs at most m forwards."
        )
    lacking = _lacking(table, p, m)
    if lacking is not None:
        device, action = lacking
        kind = "forward" if action.op == "F" else "backward"
        return Finding(
            f"{case.words}: {action} is missing: device {device} never runs the {kind} of micro-batch "
            f"{action.microbatch}. Each device runs {m} forwards and {m} backwards."
        )
    found = unsound(table, case) or _other_schedule(table, p, m, case)
    if found is None and case.part == "gradients":
        return trained(table, case)
    return found


def _refuse_negative(data: Any, case: Case) -> None:
    for device, row in enumerate(data if isinstance(data, list) else ()):
        for cell in row if isinstance(row, list) else ():
            if isinstance(cell, str) and re.fullmatch(r"\s*\d+[A-Z]-\d+\s*", cell):
                why = (
                    "If the warm-up is longer than m, m minus the warm-up is below 0."
                    if case["m"] < case["p"]
                    else "Backwards have the numbers 0 to m - 1."
                )
                raise Refused(f"{case.words}: device {device} runs {cell.strip()}, a micro-batch below 0. {why}")


def _lacking(table: Schedule, p: int, m: int) -> tuple[int, Action] | None:
    there = {action for _, _, action in table.actions()}
    for r in range(p):
        for op in "FB":
            for i in range(m):
                if Action(r, op, i) not in there:
                    return r, Action(r, op, i)
    return None


def _other_schedule(table: Schedule, p: int, m: int, case: Case) -> Finding | None:
    """What a sound order is, if it is not 1F1B's."""
    right = right_table(p, m)
    if table.programs == right.programs:
        return None
    cost = worse(table, p, m)
    shapes = ["".join(action.op for slot in row for action in actions_of(slot)) for row in table.programs]
    first = [max(len(shape) - len(shape.lstrip("F")) - 1, 0) for shape in shapes]  # forwards before the first pair
    if all(shape == "F" * m + "B" * m for shape in shapes):
        why = (
            "All forwards before the first backward is GPipe. In 1F1B a backward that is ready goes first, because it "
            "frees memory."
        )
    elif first == [min(p - 1, m - 1)] * p:
        why = f"A warm-up of p - 1 = {p - 1} is right only on device 0. Device {p - 1} needs none."
    elif first == [min(p - r, m - 1) for r in range(p)]:
        why = "p - r forwards before the first pair are one too many: the pair's own forward is in flight as well."
    elif not any(first):
        why = "Without a warm-up a device begins a micro-batch only when the gradient of the one before it is back."
    else:
        rows: list[list[str | Action]] = [[a for slot in row for a in actions_of(slot)] for row in right.programs]
        return difference(table, rows, case, partial(_why_other, cost))
    return Finding(f"{case.words}: your order is sound, but not 1F1B: {cost}. {why}", partial(beside, table, p, m))


def _why_other(cost: str, device: int, position: int, mine: str, theirs: str) -> str:
    """Why 1F1B runs another action there."""
    ops = re.sub(r"\d", "", mine) + re.sub(r"\d", "", theirs)
    reason = {
        "FB": ", because a backward that is ready goes before another forward",
        "BF": ", because the devices behind need work while the first gradient comes back",
        "FF": ", because micro-batches go in order",
        "BB": ", because the oldest micro-batch goes back first",
    }.get(ops, "")
    return f"1F1B runs {theirs or 'nothing more'} there{reason}. With your order {cost}."


EXERCISE = Exercise(
    name="one_f_one_b",
    lesson="03_one_f_one_b",
    title="Write 1F1B",
    answers=("one_f_one_b",),
    parts={"m >= p": 2, "m < p": 1, "gradients": 1},
    visible=[
        *sized("m >= p", [(2, 3), (3, 5), (4, 4), (4, 8)]),
        *sized("m < p", [(3, 2), (4, 1), (5, 3)]),
        Case("gradients", {"p": 4, "m": 8}),
    ],
    drawn=_drawn_tables,
    ask=_ask_table,
    judge=_judge_table,
)
