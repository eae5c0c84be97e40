"""Cases by size for lesson 3, and how a sound order compares with 1F1B's."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from pipelab import view
from pipelab.schedules import Schedule, build_schedule
from pipelab.simulation import simulate
from pipelab.teaching.exercises.definition import Case
from pipelab.timeline import Timeline


def right_table(p: int, m: int) -> tuple[Schedule, Timeline]:
    """1F1B's table and its timeline, tF = tB = 1."""
    schedule = build_schedule("1f1b", devices=p, microbatches=m)
    return schedule, simulate(schedule)


def beside(given: Schedule, p: int, m: int) -> view.Picture:
    """The learner's order and 1F1B's on one time axis."""
    return view.plot_schedules([simulate(given), right_table(p, m)[1]], ["Yours", "1F1B"], memory=True)


def worse(given: Schedule, p: int, m: int) -> str:
    """What a sound order costs beside 1F1B: its slots, or what a device holds for nothing."""
    mine, right = simulate(given), right_table(p, m)[1]
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


def sized(part: str, sizes: Sequence[tuple[int, int]]) -> list[Case]:
    """Cases of (p, m)."""
    return [Case(part, {"p": p, "m": m}) for p, m in sizes]


def drawn_sizes(random: Random) -> list[Case]:
    """Cases with more and with fewer micro-batches than devices."""
    many = [(p, random.randint(p + 1, 3 * p + 6)) for p in (random.randint(2, 8) for _ in range(3))]
    few = [(p, random.randint(2, p - 1)) for p in (random.randint(3, 10) for _ in range(3))]
    return [*sized("m >= p", [*many, (8, 32)]), *sized("m < p", [*few, (12, 5)])]
