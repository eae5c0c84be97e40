"""Cases by size for lesson 4, and the table that a learner's order stands beside."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

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
    """Cases of (p, groups, v): m is a multiple of p, so it is given as how many times p."""
    return [Case(part, {"p": p, "groups": g, "v": v, "_words": size_words(p, g * p, v)}) for p, g, v in sizes]


def sizes_of(case: Case) -> tuple[int, int, int]:
    """(p, m, v) of a case."""
    return case["p"], case["p"] * case["groups"], case["v"]


def beside(given: Schedule, p: int, m: int, v: int) -> view.Picture:
    """The learner's order and the right one on one time axis."""
    return view.plot_schedules([simulate(given), right_table(p, m, v)[1]], ["Yours", "Interleaved 1F1B"], memory=True)
