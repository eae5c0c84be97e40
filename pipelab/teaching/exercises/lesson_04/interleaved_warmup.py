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
from pipelab.teaching.exercises.lesson_04.beside_interleaved import beside, held, right_table, sized, sizes_of
from pipelab.teaching.exercises.lesson_04.depths import depths_of, with_depths


def _drawn_sizes(random: Random) -> list[Case]:
    few = [(random.randint(3, 8), 1, random.randint(1, 4)) for _ in range(3)]
    many = [(random.randint(2, 8), random.randint(2, 4), random.randint(1, 4)) for _ in range(4)]
    few += [(random.randint(3, 6), 1, 1), (1, 1, random.randint(2, 4))]
    few += [(random.randint(3, 5), 1, random.choice((5, 6)))]
    many += [(random.randint(2, 5), random.choice((4, 5)), random.choice((5, 6))), (random.randint(3, 6), 5, 1)]
    return [*sized("m = p", few), *sized("m > p", [*many, (5, 2, 3), (1, 4, 3)])]


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
    why = _known_depths(given, p, m, v) or (
        f"Device {r} starts in slot {r}, and its first gradient can be there in slot {p * v + p - 1 - r} (a slot is a "
        f"chunk's forward): p v = {p * v} stages down, {p - 1 - r} up. How many forwards fit between, if the last of "
        "them is that of the first pair?"
    )
    violations = check_schedule(table)
    if violations:
        picture = partial(view.plot_table, table, title=f"Your order, {case.words}")
        return Finding(f"{start}{why} With your warm-ups: {violations[0].message}.", picture)
    return Finding(f"{start}{why} {_cost(table, p, m, v)}", partial(beside, table, p, m, v))


def _known_depths(given: list[int], p: int, m: int, v: int) -> str:
    """Which mistake gives these warm-ups; "" if none that is known."""

    def are(*depths: int) -> bool:
        return given in ([min(w, m * v) for w in depths], list(depths))

    if are(*(p - 1 - r for r in range(p))) and v == 1:
        return (
            "That is 1F1B's, p - 1 - r. This order with v = 1 is not 1F1B: v = 1 has the doubled warm-up too, "
            "2(p - 1 - r)."
        )
    if are(*(p - 1 - r for r in range(p))):
        return "That is 1F1B's, p - 1 - r. Here micro-batch 0 goes round all devices v times before its first backward."
    if are(*(2 * (p - 1 - r) for r in range(p))):
        return f"Before the first backward there are also the (v - 1) p = {(v - 1) * p} forwards of the chunks before."
    if are(*((p - 1 - r) + (v - 1) * p for r in range(p))):
        return (
            "That is sound, and where messages take no time no slower. But a device then runs out of forwards before "
            "its first gradient can be there: the way is p - 1 - r devices down and as many up again. It waits, and "
            "any message that takes time makes it wait longer."
        )
    if are(*(2 * (p - r) + (v - 1) * p for r in range(p))):
        return "Two too many: with p - r for p - 1 - r the device itself is counted as one of those behind it."
    if are(*(2 * (p - 1 - r) + v * p for r in range(p))):
        return f"That is v for v - 1, {p} too many: the last chunk's forward of micro-batch 0 comes right after."
    if are(*(2 * (p - 1) + (v - 1) * p for _ in range(p))):
        return "That is device 0's, on every device. The devices further down have a shorter way."
    if are(*(2 * (p - 1 - r) + v - 1 for r in range(p))):
        return f"Of each chunk before the last a whole group of p = {p} micro-batches goes first, not one."
    if are(*(2 * (p - 1 - r) + (v - 1) * m for r in range(p))):
        return f"Forwards go in groups of p = {p}: only a group, not all m = {m}, goes through a chunk before the next."
    if are(*(m * v for _ in range(p))) and m > p:
        return "All forwards first, on every device: that is GPipe's order, with chunks."
    return ""


def _cost(table: Schedule, p: int, m: int, v: int) -> str:
    """What a sound table costs beside the right one, messages free and not."""
    mine, right = simulate(table), right_table(p, m, v)[1]
    told = []
    if mine.makespan > right.makespan + 1e-9:
        told.append(f"it takes {mine.makespan:.4g} units, not {right.makespan:.4g}")
    more = [r for r in range(p) if mine.peak_microbatches[r] > right.peak_microbatches[r] + 1e-6]
    if more:
        told.append(f"in flight are {held(mine)} shares on the devices instead of {held(right)}")
    slow = Costs(latency=0.25 / v)
    late, wanted = simulate(table, slow).makespan, simulate(right.schedule, slow).makespan
    if not told and late > wanted + 1e-9:
        told.append(f"with messages of {slow.latency:.3g} units it takes {late:.4g} units, not {wanted:.4g}")
    return f"With your warm-ups {' and '.join(told)}." if told else ""


EXERCISE = Exercise(
    name="interleaved_warmup",
    lesson="04_interleaved",
    title="How many first, with chunks?",
    answers=("interleaved_warmup",),
    parts={"m > p": 1, "m = p": 1},
    visible=[
        # First the smallest size in which the known mistakes differ from one another.
        *sized("m > p", [(3, 3, 2), (2, 2, 2), (4, 2, 2), (4, 4, 2), (3, 2, 3), (4, 2, 1)]),
        *sized("m = p", [(3, 1, 2), (4, 1, 2), (4, 1, 3), (5, 1, 1)]),
    ],
    drawn=_drawn_sizes,
    ask=_ask_depths,
    judge=_judge_depths,
)
