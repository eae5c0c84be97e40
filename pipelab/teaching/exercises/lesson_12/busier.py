"""Exercise of lesson 12: does the second schedule keep devices busier?"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from pipelab.schedules import Schedule, build_schedule
from pipelab.schedules.reserved import reserved
from pipelab.schedules.warmups import with_warmups
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.definition import Call, Case, Exercise
from pipelab.teaching.exercises.lesson_12.evidence import PARTS, Known, both_parts, judge_by
from pipelab.timeline import Timeline

POINT = 0.01


def _given(p: int, first: tuple[str, int], second: tuple[str, int], forward: list[float], times: int) -> dict[str, Any]:
    words = f"p = {p}, {first[0]} with m = {first[1]} against {second[0]} with m = {second[1]}, forwards of {forward}"
    return {
        "_tables": [_build(p, *first).to_csv(), _build(p, *second).to_csv()],
        "_forward": forward,
        "_backward": [times * f for f in forward],
        "_words": f"{words}, backwards {times} times as long",
    }


def _build(p: int, name: str, m: int) -> Schedule:
    return with_warmups([p - 1] * p, m) if name == "equal warm-ups" else build_schedule(name, p, m)


def _pair(case: Case) -> list[Schedule]:
    return [Schedule.from_csv(text) for text in case["_tables"]]


def _drawn(random: Random) -> list[Case]:
    found = []
    for same in (True, True, False, False):
        p, m = random.randint(2, 5), random.randint(2, 10)
        first, second = random.sample(("gpipe", "1f1b", "equal warm-ups"), 2)
        forward = [float(random.randint(1, 4)) for _ in range(p)]
        found.append(_given(p, (first, m), (second, m if same else 3 * m), forward, random.randint(1, 3)))
    return both_parts(found)


def _ask(call: Call, case: Case) -> Any:
    return call("busier", *_pair(case), list(case["_forward"]), list(case["_backward"]))


def _timelines(case: Case) -> list[Timeline]:
    costs = Costs(forward=case["_forward"], backward=case["_backward"])
    return [simulate(one, costs) for one in _pair(case)]


@reserved
def truth(case: Case) -> list[float]:
    """How much of the time the devices are busy, under both."""
    return [one.utilisation for one in _timelines(case)]


def _holds(case: Case, figures: Sequence[float]) -> bool:
    return figures[1] - figures[0] > POINT


def _known(case: Case, wanted: list[float]) -> Known:
    found = _timelines(case)
    return [
        ([one.bubble_fraction for one in found], "That is how much of the time they are idle."),
        ([1 - one.bubble_ratio for one in found], "Idle time was divided by busy time. Divide by total time."),
        ([one.busy[0] / one.makespan for one in found], "That is device 0 alone. Take all devices."),
        ([max(one.busy) / one.makespan for one in found], "That is the busiest device. Take all devices."),
        ([simulate(one).utilisation for one in _pair(case)], "All costs were 1. Use those that are given."),
        ([one.makespan for one in found], "These are the steps. Which part of them are the devices busy?"),
    ]


EXERCISE = Exercise(
    name="busier",
    lesson="12_claims_on_trial",
    title="Is it busier?",
    answers=("busier",),
    parts=PARTS,
    visible=both_parts(
        [
            _given(2, ("gpipe", 2), ("1f1b", 2), [1.0, 1.0], 2),
            _given(3, ("gpipe", 3), ("1f1b", 12), [2.0, 1.0, 3.0], 2),
            _given(4, ("gpipe", 8), ("1f1b", 8), [1.0, 2.0, 1.0, 3.0], 2),
            _given(4, ("equal warm-ups", 8), ("1f1b", 8), [1.0, 1.0, 1.0, 2.0], 1),
            _given(3, ("1f1b", 40), ("1f1b", 41), [2.0, 3.0, 2.0], 1),
        ]
    ),
    ask=_ask,
    judge=judge_by(
        "busier",
        truth,
        _holds,
        _known,
        "The claim is true if the second figure is more than one percentage point above the first one.",
    ),
    drawn=_drawn,
)
