"""Cases by size for lesson 3, and how a sound order compares with 1F1B's."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from pipelab import view
from pipelab.schedules import Schedule
from pipelab.schedules.reserved import reserved
from pipelab.schedules.warmups import with_warmups
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.definition import Case
from pipelab.timeline import Timeline


@reserved
def right_depths(p: int, m: int, message: int = 0) -> list[int]:
    """The warm-ups that the round trip asks for: 1F1B's where a message takes no slots."""
    return [min((p - 1 - r) * (1 + message), m) for r in range(p)]


def right_table(p: int, m: int) -> Schedule:
    """1F1B's table."""
    return with_warmups(right_depths(p, m), m, name="1f1b")


def timed(schedule: Schedule, message: int = 0) -> Timeline:
    """Its timeline with tF = tB = 1, a message taking ``message`` slots."""
    return simulate(schedule, Costs(latency=message))


def beside(given: Schedule, p: int, m: int, message: int = 0) -> view.Picture:
    """The learner's order and the right one on one time axis."""
    right = with_warmups(right_depths(p, m, message), m)
    titles = ["Yours", f"Deep enough for messages of {message}" if message else "1F1B"]
    return view.plot_schedules([timed(given, message), timed(right, message)], titles, memory=True)


def worse(given: Schedule, p: int, m: int, message: int = 0) -> str:
    """What a sound order costs beside the right one: its slots, or what a device holds for nothing."""
    mine, right = timed(given, message), timed(with_warmups(right_depths(p, m, message), m), message)
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
    return " and ".join(told) or "the order is not that of 1F1B"


def sized(part: str, sizes: Sequence[tuple[int, int]]) -> list[Case]:
    """Cases of (p, m)."""
    return [Case(part, {"p": p, "m": m}) for p, m in sizes]


def drawn_sizes(random: Random) -> list[Case]:
    """Cases with more and with fewer micro-batches than devices."""
    many = [(p, random.randint(p + 1, 3 * p + 6)) for p in (random.randint(2, 8) for _ in range(3))]
    few = [(p, random.randint(2, p - 1)) for p in (random.randint(3, 10) for _ in range(3))]
    return [*sized("m >= p", [*many, (8, 32)]), *sized("m < p", [*few, (12, 5)])]
