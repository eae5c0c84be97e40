"""Exercise of lesson 3: how deep a warm-up?"""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

from pipelab import view
from pipelab.schedules import check_schedule
from pipelab.schedules.warmups import with_warmups
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import read_whole
from pipelab.teaching.exercises.lesson_03.beside_1f1b import beside, drawn_sizes, right_depths, sized, worse


def _delayed(sizes: list[tuple[int, int, int]]) -> list[Case]:
    return [Case("messages", {"p": p, "m": m, "message": message}) for p, m, message in sizes]


def _drawn(random: Random) -> list[Case]:
    sizes = [(random.randint(2, 6), random.randint(1, 24), random.randint(1, 4)) for _ in range(4)]
    return [*drawn_sizes(random), *_delayed([*sizes, (5, 30, 3), (7, 4, 2)])]


def _arguments(case: Case, device: int) -> tuple[int, ...]:
    return (device, case["p"], case["m"], *([case["message"]] if "message" in case.given else []))


def _ask_warmup(call: Call, case: Case) -> Any:
    return [call("warmup", *_arguments(case, device)) for device in range(case["p"])]


def _judge_warmup(case: Case, data: Any) -> Finding | None:
    p, m = case["p"], case["m"]
    message = case.given.get("message", 0)
    if not isinstance(data, list) or len(data) != p:
        raise Refused(f"{case.words}: there should be {p} answers, one for each device")
    calls = [f"warmup({', '.join(map(str, _arguments(case, r)))})" for r in range(p)]
    given = [read_whole(data[r], calls[r]) for r in range(p)]
    for r, w in enumerate(given):
        start = f"{case.words}: {calls[r]} returned {w}. "
        if w < 0:
            return Finding(start + "A device cannot run fewer than 0 forwards.")
        if w > m:
            return Finding(start + f"No device can run that many: a batch of m = {m} has no more forwards.")
    wanted = right_depths(p, m, message)
    schedule = with_warmups(given, m)
    right = with_warmups(wanted, m).programs
    if schedule.programs == right:
        return None  # a depth of m and, where no pair can wait, of m - 1 give the same order
    start = f"{case.words}: your warm-ups are {', '.join(map(str, given))}. "
    violations = check_schedule(schedule)
    if violations:
        why = (
            "A device with a deeper warm-up than the device before it waits for forwards, and these come only after "
            f"its own backward: {violations[0].message}."
        )
        return Finding(start + why, partial(view.plot_table, schedule, title=f"Your order, {case.words}"))
    r = next(r for r in range(p) if schedule.programs[r] != right[r])
    cost = worse(schedule, p, m, message)
    why = _why_delayed(given, wanted, r, case, cost) if message else _why(given, wanted, r, case, cost)
    return Finding(start + why, partial(beside, schedule, p, m, message))


def _why(given: list[int], wanted: list[int], r: int, case: Case, cost: str) -> str:
    """What is wrong with sound warm-ups where messages are free; ``r`` is the first device that differs."""
    p, m = case["p"], case["m"]
    if given == [min(p - 1, m)] * p and p > 1:
        return (
            f"That is p - 1 on every device, and {cost}. Device {p - 1} could run {p - 1}B0 right after {p - 1}F0. "
            "Yours runs more forwards first, and every device that waits for its gradient waits longer."
        )
    if given == [min(p - r, m) for r in range(p)]:
        return (
            f"That is p - r, one too many: {cost}, and nothing is gained. At most p - r micro-batches are in flight, "
            "and the last of them is the forward of the first pair."
        )
    if given == [m] * p:
        return f"All m forwards first, on every device, is GPipe: {cost}."
    if not any(given):
        return f"Without a warm-up only one micro-batch is under way at a time: {cost}."
    return (
        f"On device {r} that is too {'many' if given[r] > wanted[r] else 'few'}: {cost}. From there a micro-batch "
        f"passes {p - r} devices forward and {p - r} backward, so its own backward is done after {2 * (p - r)} slots. "
        "How many have to be in flight, if each keeps the device busy for 2 slots?"
    )


def _why_delayed(given: list[int], wanted: list[int], r: int, case: Case, cost: str) -> str:
    """The same where each message takes time."""
    p, m, message = case["p"], case["m"], case["message"]
    behind = p - 1 - r
    trip = (
        f"From device {r} the round trip takes {2 * (p - r)} slots of work and {2 * behind} messages of {message}, "
        f"{2 * (p - r) + 2 * behind * message} slots in all."
    )
    if given == right_depths(p, m):
        return f"That is right where messages are free. Here {cost}. {trip}"
    return (
        f"On device {r} that is too {'many' if given[r] > wanted[r] else 'few'}: {cost}. {trip} How many have to be in "
        "flight, if each keeps the device busy for 2 slots?"
    )


EXERCISE = Exercise(
    name="warmup",
    lesson="03_one_f_one_b",
    title="How many first?",
    answers=("warmup",),
    parts={"m >= p": 1, "m < p": 1, "messages": 1},
    visible=[
        *sized("m >= p", [(2, 3), (3, 3), (3, 5), (4, 8), (1, 2)]),
        *sized("m < p", [(3, 2), (4, 1), (5, 3)]),
        *_delayed([(2, 4, 1), (3, 12, 1), (4, 16, 2), (3, 3, 2)]),
    ],
    drawn=_drawn,
    ask=_ask_warmup,
    judge=_judge_warmup,
)
