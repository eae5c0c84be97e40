"""Exercise of lesson 12: is the total idle time the same for every m?"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from pipelab.schedules import Schedule, build_schedule
from pipelab.schedules.reserved import reserved
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.definition import Call, Case, Exercise
from pipelab.teaching.exercises.lesson_12.evidence import PARTS, Known, both_parts, judge_by
from pipelab.timeline import Timeline


def _given(p: int, runs: list[list[int]], fixed: float, each: float) -> dict[str, Any]:
    told = ", ".join(f"m = {m} of {size} sequences" for m, size in runs)
    return {
        "_tables": [build_schedule("1f1b", p, m).to_csv() for m, _ in runs],
        "_sizes": [size for _, size in runs],
        "_fixed": fixed,
        "_each": each,
        "_words": f"p = {p}, {told}, fixed = {fixed:g}, each = {each:g}",
    }


def _drawn(random: Random) -> list[Case]:
    found = []
    for kind in ("batch", "size", "batch", "fixed"):
        p, pieces = random.randint(2, 6), sorted(random.sample((1, 2, 3, 4, 6, 8, 12), 3))
        size = random.randint(1, 5)
        runs = [[m, size if kind == "size" else 24 // m] for m in pieces]
        each = 0.0 if kind == "fixed" else float(random.randint(1, 3))
        found.append(_given(p, runs, random.choice((0.5, 2.0, 3.0)), each))
    return both_parts(found)


def _schedules(case: Case) -> list[Schedule]:
    return [Schedule.from_csv(text) for text in case["_tables"]]


def _ask(call: Call, case: Case) -> Any:
    return call("idle_time", _schedules(case), list(case["_sizes"]), case["_fixed"], case["_each"])


def _timelines(case: Case, fixed: float = 1, times: float = 2) -> list[Timeline]:
    takes = [fixed * case["_fixed"] + case["_each"] * size for size in case["_sizes"]]
    return [
        simulate(one, Costs(forward=time, backward=times * time))
        for one, time in zip(_schedules(case), takes, strict=True)
    ]


def _idle(timeline: Timeline) -> float:
    return timeline.schedule.devices * timeline.makespan - sum(timeline.busy)


@reserved
def truth(case: Case) -> list[float]:
    """The idle time of all devices, for each m."""
    return [_idle(one) for one in _timelines(case)]


def _holds(case: Case, figures: Sequence[float]) -> bool:
    return max(figures) - min(figures) <= 0.01 * max(figures)


def _known(case: Case, wanted: list[float]) -> Known:
    found = _timelines(case)
    p = found[0].schedule.devices
    return [
        ([idle / p for idle in wanted], "That is the idle time of one device. Add up all of them."),
        ([one.bubble_fraction for one in found], "These are fractions of the total time. The claim is about the time."),
        ([one.bubble_ratio for one in found], "These are ratios to the busy time. The claim is about the time."),
        ([_idle(one) for one in _timelines(case, fixed=0)], "The fixed cost of an action is missing."),
        ([_idle(one) for one in _timelines(case, times=1)], "Here a backward takes twice as long as a forward."),
        ([_idle(simulate(one)) for one in _schedules(case)], "All costs were 1. Here they depend on the size."),
    ]


EXERCISE = Exercise(
    name="idle_time",
    lesson="12_claims_on_trial",
    title="The same idle time?",
    answers=("idle_time",),
    parts=PARTS,
    visible=both_parts(
        [
            _given(2, [[1, 4], [2, 2], [4, 1]], 1.0, 1.0),
            _given(3, [[2, 4], [3, 4], [6, 4]], 1.0, 2.0),
            _given(4, [[4, 16], [8, 8], [16, 4]], 2.0, 1.0),
            _given(3, [[2, 6], [3, 4], [12, 1]], 3.0, 0.0),
        ]
    ),
    ask=_ask,
    judge=judge_by(
        "idle_time",
        truth,
        _holds,
        _known,
        "The claim is true if the largest and the smallest figure differ by at most one per cent of the largest.",
    ),
    drawn=_drawn,
)
