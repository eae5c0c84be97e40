"""Exercise of lesson 4: how many forwards come first, with chunks?"""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

from pipelab import view
from pipelab.schedules import Schedule, check_schedule
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import read_whole
from pipelab.teaching.exercises.lesson_04.beside_interleaved import (
    beside,
    group_of,
    group_words,
    held,
    other_groups,
    right_table,
    sized,
    sizes_of,
)
from pipelab.teaching.exercises.lesson_04.depths import depths_of, with_depths


def _drawn_sizes(random: Random) -> list[Case]:
    few = [(p, p, random.randint(1, 4)) for p in random.choices(range(3, 9), k=3)]
    many = [(p, p * random.randint(2, 4), random.randint(1, 4)) for p in random.choices(range(2, 9), k=4)]
    few += [(p, p, 1) for p in random.choices(range(3, 7), k=1)] + [(1, 1, random.randint(2, 4))]
    few += [(p, p, random.choice((5, 6))) for p in random.choices(range(3, 6), k=1)]
    many += [(p, p * random.choice((4, 5)), random.choice((5, 6))) for p in random.choices(range(2, 6), k=1)]
    many += [(p, 5 * p, 1) for p in random.choices(range(3, 7), k=1)]
    groups = [*other_groups(random), *other_groups(random)]
    return [*sized("m = p", few), *sized("m > p", [*many, (5, 10, 3), (1, 4, 3)]), *sized("other groups", groups)]


def _ask_depths(call: Call, case: Case) -> Any:
    p, m, v = sizes_of(case)
    return [call("interleaved_warmup", r, p, m, v) for r in range(p)]


def _judge_depths(case: Case, data: Any) -> Finding | None:
    p, m, v = sizes_of(case)
    if not isinstance(data, list) or len(data) != p:
        raise Refused(f"{case.words}: there should be {p} answers, one for each device")
    given = [read_whole(data[r], f"interleaved_warmup({r}, {p}, {m}, {v})") for r in range(p)]
    wanted = depths_of(p, m, v)
    last = m * v - 1  # a last forward and the first backward are a pair, whether one calls them so or not
    if [min(w, last) for w in given] == [min(w, last) for w in wanted] and max(given) <= m * v:
        return None
    r = next(r for r in range(p) if min(given[r], last) != min(wanted[r], last) or given[r] > m * v)
    start = f"{case.words}: interleaved_warmup({r}, {p}, {m}, {v}) returned {given[r]}. "
    if given[r] < 0:
        return Finding(start + "A device cannot run fewer than no forwards.")
    if given[r] > m * v:
        return Finding(
            f"{start}No device can run that many: m = {m} micro-batches through v = {v} chunks are {m * v} forwards."
        )
    table = with_depths(given, m, v)
    why = _known_depths(given, p, m, v) or _counted(r, p, m, v)
    violations = check_schedule(table)
    if violations:
        picture = partial(view.plot_table, table, title=f"Your order, {case.words}")
        return Finding(f"{start}{why} With your warm-ups: {violations[0].message}.", picture)
    return Finding(f"{start}{why} {_cost(table, p, m, v)}", partial(beside, table, p, m, v))


def _counted(r: int, p: int, m: int, v: int) -> str:
    """How to count the warm-up, for a mistake that is not known."""
    through = (v - 1) * max(group_of(p, m), p) + p - 1  # the slot in which micro-batch 0 runs on the last stage
    return (
        f"Device {r} starts in slot {r} (a slot is a chunk's forward). Micro-batch 0 is on the last stage in slot "
        f"{through}, so its gradient can be on device {r} in slot {through + p - r}. How many forwards has the device "
        "run by then? The last of them is that of the first pair, so it does not count."
    )


def _known_depths(given: list[int], p: int, m: int, v: int) -> str:
    """Which mistake gives these warm-ups; "" if none that is known."""

    def are(*depths: int) -> bool:
        return given in ([min(w, m * v) for w in depths], list(depths))

    g = group_of(p, m)
    if are(*(p - 1 - r for r in range(p))) and v == 1:
        return (
            "That is 1F1B's, p - 1 - r. Interleaved with v = 1 is not 1F1B: its warm-up is doubled for v = 1 too, "
            "2(p - 1 - r)."
        )
    if are(*(p - 1 - r for r in range(p))):
        return "That is 1F1B's, p - 1 - r. Here micro-batch 0 goes round all devices v times before its first backward."
    if are(*(2 * (p - 1 - r) for r in range(p))):
        return f"Before the first backward there are also the (v - 1) g = {(v - 1) * g} forwards of the chunks before."
    if are(*((p - 1 - r) + (v - 1) * g for r in range(p))):
        return (
            "That is half of the doubled part. It is sound, and no slower where messages take no time, so the exercise "
            "interleaved accepts it. Here the question is another. With this warm-up the device waits for its first "
            "gradient although it has forwards left that could run. Count the way down to the last device and the way "
            "back up."
        )
    if g != p and are(*(2 * (p - 1 - r) + (v - 1) * p for r in range(p))):
        return (
            f"That is right for groups of p = {p}. Here m = {m} micro-batches make {group_words(p, m)}, and the whole "
            "group goes through a chunk before the next."
        )
    if are(*(2 * (p - r) + (v - 1) * g for r in range(p))):
        return "Two too many: with p - r in place of p - 1 - r the device counts itself among those behind it."
    if are(*(2 * (p - 1 - r) + v * g for r in range(p))):
        return (
            f"That has v in place of v - 1, which is {g} too many: micro-batch 0's forward through the last chunk "
            "comes right after the other chunks."
        )
    if are(*(2 * (p - 1) + (v - 1) * g for _ in range(p))):
        return "That is device 0's, on every device. The devices further down have a shorter way."
    if are(*(2 * (p - 1 - r) + v - 1 for r in range(p))):
        return f"Of each chunk before the last a whole group of g = {g} micro-batches goes first, not one."
    if are(*(2 * (p - 1 - r) + (v - 1) * m for r in range(p))):
        return f"Forwards go in groups of g = {g}: only a group, not all m = {m}, goes through a chunk before the next."
    if are(*(m * v for _ in range(p))) and m > p:
        return "All forwards first, on every device: that is GPipe's order, with chunks."
    return ""


def _cost(table: Schedule, p: int, m: int, v: int) -> str:
    """What a sound table costs beside the right one, messages free and not."""
    mine, right = simulate(table), right_table(p, m, v)[1]
    told = []
    if mine.makespan > right.makespan + 1e-9:
        told.append(f"the step takes {mine.makespan:.4g} units, not {right.makespan:.4g}")
    more = [r for r in range(p) if mine.peak_microbatches[r] > right.peak_microbatches[r] + 1e-6]
    if more:
        told.append(f"the devices hold {held(mine)} shares instead of {held(right)}")
    slow = Costs(latency=0.25 / v)
    late, wanted = simulate(table, slow).makespan, simulate(right.schedule, slow).makespan
    if not told and late > wanted + 1e-9:
        told.append(f"the step takes {late:.4g} units, not {wanted:.4g}, if a message takes {slow.latency:.3g} units")
    return f"With your warm-ups {' and '.join(told)}." if told else ""


EXERCISE = Exercise(
    name="interleaved_warmup",
    lesson="04_interleaved",
    title="How many first, with chunks?",
    answers=("interleaved_warmup",),
    parts={"m > p": 1, "m = p": 1, "other groups": 1},
    visible=[
        # First the smallest size in which the known mistakes differ from one another.
        *sized("m > p", [(3, 9, 2), (2, 4, 2), (4, 8, 2), (4, 16, 2), (3, 6, 3), (4, 8, 1)]),
        *sized("m = p", [(3, 3, 2), (4, 4, 2), (4, 4, 3), (5, 5, 1)]),
        *sized("other groups", [(4, 6, 2), (3, 5, 2), (4, 10, 2), (3, 8, 3), (4, 3, 2), (5, 2, 3)]),
    ],
    drawn=_drawn_sizes,
    ask=_ask_depths,
    judge=_judge_depths,
)
