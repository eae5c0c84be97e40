"""Exercise of lesson 12: is the root of the batch the best size of a micro-batch?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Any

from pipelab.schedules import Schedule, build_schedule
from pipelab.schedules.reserved import reserved
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.definition import Call, Case, Exercise
from pipelab.teaching.exercises.lesson_12.evidence import PARTS, Known, both_parts, judge_by

ROOM = 1e-9


def _given(p: int, batch: int, fixed: float, each: float) -> dict[str, Any]:
    words = f"p = {p}, a batch of {batch}, fixed = {fixed:g}, each = {each:g}"
    sizes = [size for size in range(1, batch + 1) if batch % size == 0]
    tables = [build_schedule("1f1b", p, batch // size).to_csv() for size in sizes]
    return {"_batch": batch, "_sizes": sizes, "_tables": tables, "_fixed": fixed, "_each": each, "_words": words}


def _drawn(random: Random) -> list[Case]:
    found = []
    for factor in (1.0, 1.0, 0.1, 4.0):
        p, each = random.randint(2, 6), float(random.randint(1, 3))
        found.append(_given(p, random.choice((16, 36, 64)), factor * (p - 1) * each, each))
    return both_parts(found)


def _schedules(case: Case) -> dict[int, Schedule]:
    return dict(zip(case["_sizes"], map(Schedule.from_csv, case["_tables"]), strict=True))


def _ask(call: Call, case: Case) -> Any:
    return call("best_size", _schedules(case), case["_fixed"], case["_each"])


def _steps(case: Case, fixed: float = 1, each: float = 1, times: float = 2) -> list[float]:
    found = []
    for size, schedule in _schedules(case).items():
        takes = fixed * case["_fixed"] + case["_each"] * size * each
        found.append(simulate(schedule, Costs(forward=takes, backward=times * takes)).makespan)
    return found


@reserved
def truth(case: Case) -> list[float]:
    """The step for each size."""
    return _steps(case)


def _holds(case: Case, figures: Sequence[float]) -> bool:
    return figures[case["_sizes"].index(math.isqrt(case["_batch"]))] <= min(figures) * (1 + ROOM)


def _known(case: Case, wanted: list[float]) -> Known:
    sizes = case["_sizes"]
    alike = [simulate(one, Costs(forward=1, backward=2)).makespan for one in _schedules(case).values()]
    per_item = [case["_fixed"] + case["_each"]]
    return [
        (_steps(case, fixed=0), "The fixed cost of an action is missing."),
        (_steps(case, times=1), "Here a backward takes twice as long as a forward."),
        (_steps(case, times=0), "The backwards are missing."),
        (alike, "All sizes cost the same here. An action takes fixed + each for each of its sequences."),
        ([per_item[0] * one for one in alike], "The cost of one sequence was taken for that of a micro-batch."),
        (
            [step * size / case["_batch"] for step, size in zip(wanted, sizes, strict=True)],
            "That is a step divided by m.",
        ),
        ([step / case["_batch"] for step in wanted], "That is the time for one sequence. Return the whole step."),
    ]


EXERCISE = Exercise(
    name="best_size",
    lesson="12d_pipelines_on_trial",
    title="The root of the batch",
    answers=("best_size",),
    parts=PARTS,
    visible=both_parts(
        [
            _given(2, 4, 1.0, 1.0),
            _given(3, 16, 0.2, 1.0),
            _given(4, 64, 6.0, 2.0),
            _given(4, 64, 12.0, 1.0),
        ]
    ),
    ask=_ask,
    judge=judge_by(
        "best_size",
        truth,
        _holds,
        _known,
        "The claim is true if no size has a shorter step than the root of the batch.",
    ),
    drawn=_drawn,
)
