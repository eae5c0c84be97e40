"""Exercise of lesson 12: does recomputation make a step a third longer?"""

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

LEAST, MOST = 0.30, 0.37


def _given(name: str, p: int, m: int, forward: float, backward: float) -> dict[str, Any]:
    return {
        "_tables": [build_schedule(name, p, m, recompute=again).to_csv() for again in (False, True)],
        "p": p,
        "m": m,
        "_costs": [forward, backward],
        "_words": f"{name}, p = {p}, m = {m}, forward {forward:g}, backward {backward:g}",
    }


def _drawn(random: Random) -> list[Case]:
    found = []
    for times, many in ((2.0, True), (1.0, True), (2.0, False), (3.0, True)):
        p, forward = random.randint(2, 5), float(random.randint(1, 4))
        m = random.randint(20 * p, 24 * p) if many else random.randint(1, p)
        found.append(_given(random.choice(("gpipe", "1f1b")), p, m, forward, times * forward))
    return both_parts(found)


def _pair(case: Case) -> list[Schedule]:
    return [Schedule.from_csv(text) for text in case["_tables"]]


def _ask(call: Call, case: Case) -> Any:
    return call("recompute_price", *_pair(case), *case["_costs"])


def _timelines(case: Case, costs: Costs) -> list[Timeline]:
    return [simulate(one, costs) for one in _pair(case)]


def _added(plain: Timeline, again: Timeline) -> list[float]:
    return [sum(again.busy) / sum(plain.busy) - 1, again.makespan / plain.makespan - 1]


@reserved
def truth(case: Case) -> list[float]:
    """What recomputation adds to the work of all devices, and to the step, as fractions of those without it."""
    forward, backward = case["_costs"]
    return _added(*_timelines(case, Costs(forward=forward, backward=backward)))


def _holds(case: Case, figures: Sequence[float]) -> bool:
    return LEAST <= figures[1] <= MOST


def _known(case: Case, wanted: list[float]) -> Known:
    forward, backward = case["_costs"]
    plain, again = _timelines(case, Costs(forward=forward, backward=backward))
    work, step = wanted
    return [
        ([work, work], "The second figure is that of the work. The step has a bubble too."),
        ([step, step], "The first figure is that of the step. Add up what the devices work."),
        ([step, work], "The two figures are in the wrong order."),
        ([1 + work, 1 + step], "These are the new times over the old ones. What is added?"),
        ([1 - 1 / (1 + work), 1 - 1 / (1 + step)], "The difference was divided by the time with recomputation."),
        ([forward / backward] * 2, "A forward was compared with a backward. Without recomputation both are work."),
        (
            [sum(again.busy) - sum(plain.busy), again.makespan - plain.makespan],
            "These are times. Divide them by those without recomputation.",
        ),
        (_added(*_timelines(case, Costs())), "All costs were 1. Use those that are given."),
    ]


EXERCISE = Exercise(
    name="recompute_price",
    lesson="12b_papers_on_trial",
    title="The price of recomputation",
    answers=("recompute_price",),
    parts=PARTS,
    visible=both_parts(
        [
            _given("gpipe", 2, 1, 1.0, 2.0),
            _given("gpipe", 4, 4, 1.0, 2.0),
            _given("1f1b", 2, 40, 3.0, 6.0),
            _given("1f1b", 4, 60, 2.0, 2.0),
            _given("gpipe", 3, 50, 1.0, 3.0),
        ]
    ),
    ask=_ask,
    judge=judge_by(
        "recompute_price",
        truth,
        _holds,
        _known,
        "The claim is true if the step becomes longer by at least 30 % and at most 37 %.",
    ),
    drawn=_drawn,
)
