"""Exercises of lesson 3 on the order: how deep a warm-up, and 1F1B itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

from pipelab import view
from pipelab.schedules import Action, Schedule, actions_of, build_schedule, check_schedule
from pipelab.schedules.warmups import with_warmups
from pipelab.simulation import simulate
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import difference, read_table, read_whole, trained, unsound
from pipelab.timeline import Timeline

LESSON = "03_one_f_one_b"


def _right(p: int, m: int) -> tuple[Schedule, Timeline]:
    schedule = build_schedule("1f1b", devices=p, microbatches=m)
    return schedule, simulate(schedule)


def _beside(given: Schedule, p: int, m: int) -> view.Picture:
    """The learner's order and 1F1B's on one time axis."""
    return view.plot_schedules([simulate(given), _right(p, m)[1]], ["Yours", "1F1B"], memory=True)


def _held(timeline: Timeline) -> str:
    return ", ".join(f"{peak:g}" for peak in timeline.peak_microbatches)


def _worse(given: Schedule, p: int, m: int) -> str:
    """What a sound order costs beside 1F1B: its slots, or what a device holds for nothing."""
    mine, right = simulate(given), _right(p, m)[1]
    told = []
    if mine.makespan != right.makespan:
        told.append(f"the pipeline needs {mine.makespan:g} slots instead of {right.makespan:g}")
    more = [r for r in range(p) if mine.peak_microbatches[r] > right.peak_microbatches[r]]
    if more:
        r = max(more, key=lambda r: mine.peak_microbatches[r] - right.peak_microbatches[r])
        told.append(
            f"device {r} has {mine.peak_microbatches[r]:g} micro-batches in flight instead of "
            f"{right.peak_microbatches[r]:g}"
        )
    return " and ".join(told) or "the order is another than 1F1B's"


# ---- How many first? ----------------------------------------------------------------------------------------------


def _sizes(part: str, sizes: Sequence[tuple[int, int]]) -> list[Case]:
    return [Case(part, {"p": p, "m": m}) for p, m in sizes]


def _drawn_sizes(random: Random) -> list[Case]:
    many = [(p, random.randint(p + 1, 3 * p + 6)) for p in (random.randint(2, 8) for _ in range(3))]
    few = [(p, random.randint(2, p - 1)) for p in (random.randint(3, 10) for _ in range(3))]
    return [*_sizes("m >= p", [*many, (8, 32)]), *_sizes("m < p", [*few, (12, 5)])]


def _ask_warmup(call: Call, case: Case) -> Any:
    return [call("warmup", device, case["p"], case["m"]) for device in range(case["p"])]


def _judge_warmup(case: Case, data: Any) -> Finding | None:
    p, m = case["p"], case["m"]
    if not isinstance(data, list) or len(data) != p:
        raise Refused(f"{case.words}: there should be {p} answers, one for each device")
    given = [read_whole(data[r], f"warmup({r}, {p}, {m})") for r in range(p)]
    for r, w in enumerate(given):
        start = f"{case.words}: warmup({r}, {p}, {m}) returned {w}. "
        if w < 0:
            return Finding(start + "A device cannot run fewer than no forwards.")
        if w > m:
            why = f"No device can run that many: a batch of m = {m} has no more forwards."
            return Finding(start + why)
    wanted = [min(p - 1 - r, m) for r in range(p)]
    schedule = with_warmups(given, m)
    if schedule.programs == with_warmups(wanted, m).programs:
        return None  # min(p-1-r, m) and, where no pair can wait, m - 1 give the same order
    r = next(r for r in range(p) if with_warmups(given, m).programs[r] != with_warmups(wanted, m).programs[r])
    start = f"{case.words}: your warm-ups are {', '.join(map(str, given))}. "
    violations = check_schedule(schedule)
    if violations:
        why = (
            "A device that runs more forwards first than the device before it waits for forwards that only come after "
            f"its own backward: {violations[0].message}."
        )
        return Finding(start + why, partial(view.plot_table, schedule, title=f"Your order, {case.words}"))
    cost = _worse(schedule, p, m)
    if given == [min(p - 1, m)] * p and p > 1:
        why = (
            f"That is p - 1 on every device; then {cost}. Device {p - 1} has all it needs for {p - 1}B0 "
            f"once {p - 1}F0 is done; yours runs more forwards first, and all who wait for its gradient wait longer."
        )
    elif given == [min(p - r, m) for r in range(p)]:
        why = (
            f"That is p - r, one too many: then {cost}, and nothing is won. p - r are in flight at most; the last of "
            "them is the forward of the first pair."
        )
    elif given == [m] * p:
        why = f"All m forwards first, on every device, is GPipe: {cost}."
    elif not any(given):
        why = f"Without a warm-up one micro-batch is under way at a time: {cost}."
    else:
        many = "many" if given[r] > wanted[r] else "few"
        why = (
            f"On device {r} that is too {many}: {cost}. From there a micro-batch passes {p - r} devices forward and "
            f"{p - r} backward: {2 * (p - r)} slots until its own backward is done. How many have to be in flight, if "
            "each keeps the device busy for 2?"
        )
    return Finding(start + why, partial(_beside, schedule, p, m))


# ---- Write 1F1B ---------------------------------------------------------------------------------------------------


def _drawn_tables(random: Random) -> list[Case]:
    p = random.choice((2, 3, 4, 6))
    return [*_drawn_sizes(random), Case("gradients", {"p": p, "m": random.choice((8, 12))})]


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
            f"{case.words}: device {device} runs {action}, but there are micro-batches 0..{m - 1}. With m < p a "
            "warm-up of p - 1 - r may be more than there is: a device runs at most m forwards."
        )
    lacking = _lacking(table, p, m)
    if lacking is not None:
        device, action = lacking
        kind = "forward" if action.op == "F" else "backward"
        return Finding(
            f"{case.words}: {action} is missing: device {device} never runs micro-batch {action.microbatch} {kind}. "
            f"Each device runs {m} forwards and {m} backwards."
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
                    "Counting back from m by the warm-up goes below 0 where the warm-up is longer than m."
                    if case["m"] < case["p"]
                    else "Backwards are numbered 0 to m - 1."
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
    right = _right(p, m)[0]
    if table.programs == right.programs:
        return None
    cost = _worse(table, p, m)
    shapes = ["".join(action.op for slot in row for action in actions_of(slot)) for row in table.programs]
    first = [max(len(shape) - len(shape.lstrip("F")) - 1, 0) for shape in shapes]  # forwards before the first pair
    if all(shape == "F" * m + "B" * m for shape in shapes):
        why = "All forwards before the first backward is GPipe. A backward that is ready goes first: it frees memory."
    elif first == [min(p - 1, m - 1)] * p:
        why = f"A warm-up of p - 1 = {p - 1} is right on device 0 alone; device {p - 1} needs none."
    elif first == [min(p - r, m - 1) for r in range(p)]:
        why = "p - r forwards before the first pair is one too many: that pair's own forward is in flight as well."
    elif not any(first):
        why = "Without a warm-up, a device waits for the gradient of one micro-batch before it begins the next."
    else:
        rows: list[list[str | Action]] = [[a for slot in row for a in actions_of(slot)] for row in right.programs]
        return difference(table, rows, case, partial(_why_other, cost))
    return Finding(f"{case.words}: that is sound, but not 1F1B: {cost}. {why}", partial(_beside, table, p, m))


def _why_other(cost: str, device: int, position: int, mine: str, theirs: str) -> str:
    """Why 1F1B runs another action there."""
    ops = re.sub(r"\d", "", mine) + re.sub(r"\d", "", theirs)
    reason = {
        "FB": ": a backward that is due goes before another forward",
        "BF": ": the devices behind are to have work while the first gradient comes back",
        "FF": ": micro-batches go in order",
        "BB": ": the oldest micro-batch goes back first",
    }.get(ops, "")
    return f"1F1B runs {theirs or 'nothing more'} there{reason}. As it is, {cost}."


EXERCISES = (
    Exercise(
        name="warmup",
        lesson=LESSON,
        title="How many first?",
        answers=("warmup",),
        parts={"m >= p": 1, "m < p": 1},
        visible=[
            *_sizes("m >= p", [(2, 3), (3, 3), (3, 5), (4, 8), (1, 2)]),
            *_sizes("m < p", [(3, 2), (4, 1), (5, 3)]),
        ],
        drawn=_drawn_sizes,
        ask=_ask_warmup,
        judge=_judge_warmup,
    ),
    Exercise(
        name="one_f_one_b",
        lesson=LESSON,
        title="Write 1F1B",
        answers=("one_f_one_b",),
        parts={"m >= p": 2, "m < p": 1, "gradients": 1},
        visible=[
            *_sizes("m >= p", [(2, 3), (3, 5), (4, 4), (4, 8)]),
            *_sizes("m < p", [(3, 2), (4, 1), (5, 3)]),
            Case("gradients", {"p": 4, "m": 8}),
        ],
        drawn=_drawn_tables,
        ask=_ask_table,
        judge=_judge_table,
    ),
)
