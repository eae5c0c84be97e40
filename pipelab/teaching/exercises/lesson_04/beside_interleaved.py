"""Cases by size for lesson 4, and the table that a learner's order stands beside."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from random import Random

from pipelab import view
from pipelab.schedules import Schedule, build_schedule
from pipelab.simulation import simulate
from pipelab.teaching.exercises.definition import Case
from pipelab.timeline import Timeline


@cache
def right_table(p: int, m: int, v: int) -> tuple[Schedule, Timeline]:
    """The catalogue's table and its timeline, tF = tB = 1."""
    schedule = build_schedule("interleaved", devices=p, microbatches=m, chunks=v)
    return schedule, simulate(schedule)


def held(timeline: Timeline) -> str:
    """What is in flight on each device."""
    return ", ".join(f"{peak:.3g}" for peak in timeline.peak_microbatches)


def size_words(p: int, m: int, v: int) -> str:
    """How a message begins."""
    return f"p = {p}, m = {m}, v = {v}"


def sized(part: str, sizes: Sequence[tuple[int, int, int]]) -> list[Case]:
    """Cases of (p, m, v)."""
    return [Case(part, {"p": p, "m": m, "v": v, "_words": size_words(p, m, v)}) for p, m, v in sizes]


def other_groups(random: Random) -> list[tuple[int, int, int]]:
    """(p, m, v) whose groups do not have p members: one group of fewer, one of more, several of one more."""
    p, v = random.randint(4, 5), random.randint(2, 3)
    few = (p, random.randint(2, p - 1), v)
    one = (p, p + random.randint(1, p - 1), v)
    several = (p, random.randint(2, 3) * (p + 1), v)
    return [few, one, several]


def sizes_of(case: Case) -> tuple[int, int, int]:
    """(p, m, v) of a case."""
    return case["p"], case["m"], case["v"]


def group_of(p: int, m: int) -> int:
    """g, how many micro-batches are in a group: m // p groups of equal size, or one."""
    return m // max(1, m // p)


def group_words(p: int, m: int) -> str:
    """ "2 groups of 5"."""
    groups = max(1, m // p)
    return f"{groups} group{'s' if groups > 1 else ''} of {group_of(p, m)}"


def beside(given: Schedule, p: int, m: int, v: int) -> view.Picture:
    """The learner's order and the right one on one time axis."""
    return view.plot_schedules([simulate(given), right_table(p, m, v)[1]], ["Yours", "Interleaved 1F1B"], memory=True)
