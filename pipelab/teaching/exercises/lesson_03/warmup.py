"""Exercise of lesson 3: how deep a warm-up?"""

from __future__ import annotations

from functools import partial
from typing import Any

from pipelab import view
from pipelab.schedules import check_schedule
from pipelab.schedules.warmups import with_warmups
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import read_whole
from pipelab.teaching.exercises.lesson_03.beside_1f1b import beside, drawn_sizes, sized, worse


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
    cost = worse(schedule, p, m)
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
    return Finding(start + why, partial(beside, schedule, p, m))


EXERCISE = Exercise(
    name="warmup",
    lesson="03_one_f_one_b",
    title="How many first?",
    answers=("warmup",),
    parts={"m >= p": 1, "m < p": 1},
    visible=[
        *sized("m >= p", [(2, 3), (3, 3), (3, 5), (4, 8), (1, 2)]),
        *sized("m < p", [(3, 2), (4, 1), (5, 3)]),
    ],
    drawn=drawn_sizes,
    ask=_ask_warmup,
    judge=_judge_warmup,
)
