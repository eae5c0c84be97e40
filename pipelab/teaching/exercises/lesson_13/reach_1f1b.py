"""Exercise of lesson 13: a rule of one's own that is as fast as 1F1B in the memory of 1F1B's device 0."""

from __future__ import annotations

from random import Random
from typing import Any

from pipelab.schedules import build_schedule
from pipelab.schedules.reserved import reserved
from pipelab.simulation import Costs, simulate
from pipelab.teaching.design.goal import Goal, Rating
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.judging import trained
from pipelab.teaching.exercises.lesson_13.designs import Asked, cases_of, judged, ops

COSTS = Costs(forward=1, backward=2)
PARTS = ("sound", "half of the way", "all the way")


def _sizes(*sizes: tuple[int, int]) -> list[dict[str, Any]]:
    return [{"p": p, "m": m} for p, m in sizes]


def _drawn(random: Random) -> list[Case]:
    many = [(p, random.randint(p + 1, 3 * p + 4)) for p in (random.randint(2, 8) for _ in range(4))]
    few = [(p, random.randint(2, p - 1)) for p in (random.randint(3, 9) for _ in range(3))]
    return cases_of(_sizes(*many, *few, (8, 24)), PARTS)


@reserved
def asked(p: int, m: int) -> Asked:
    """From one micro-batch at a time to 1F1B."""
    goal = Goal(p, m, costs=COSTS)  # 1F1B's memory on device 0 for each
    return Asked(goal, tuple(range(p)), m * p * 3.0, simulate(build_schedule("1f1b", p, m), COSTS).makespan)


def _ask(call: Call, case: Case) -> Any:
    return call("design", case["p"], case["m"])


def _judge(case: Case, data: Any) -> Finding | None:
    p, m = case["p"], case["m"]
    finding, table = judged(case, data, f"design({p}, {m})", asked(p, m), _why)
    if table is not None and case.part == "gradients":
        return trained(table, case)
    return finding


def _why(rating: Rating) -> str:
    rows = ops(rating.schedule)
    p, m = rating.goal.devices, rating.goal.microbatches
    first = [len(row) - len(row.lstrip("F")) for row in rows]
    if rating.fits:
        if m > 1 and set(first) == {1}:
            return "Each device begins its second F only after a backward, so device 0 waits for a whole round trip."
        short = next((r for r in range(p) if first[r] < min(p - r, m)), None)
        if short is None:
            return ""
        return (
            f"Device {short} runs {first[short]} F before its first backward. That gradient has a longer way: there is "
            "time for more F, and memory too."
        )
    r = rating.over_limit[0]
    if first[r] == m:
        return f"It runs all {m} F first, as in GPipe. What it holds should not grow with m."
    return f"It runs {first[r]} F before its first backward."


EXERCISE = Exercise(
    name="reach_1f1b",
    lesson="13_design_your_own",
    title="A first design",
    answers=("design",),
    parts={"sound": 1, "half of the way": 1, "all the way": 1, "gradients": 1},
    visible=[
        *cases_of(_sizes((2, 1), (2, 3), (3, 2), (3, 3), (4, 8)), PARTS),
        *cases_of(_sizes((4, 8)), ["gradients"]),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
