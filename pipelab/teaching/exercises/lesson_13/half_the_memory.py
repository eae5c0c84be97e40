"""Exercise of lesson 13: stages in a V, and a limit of about half of what 1F1B holds."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

from pipelab.schedules import Schedule, build_schedule
from pipelab.schedules.reserved import reserved
from pipelab.schedules.warmups import with_warmups
from pipelab.simulation import Costs, simulate
from pipelab.teaching.design.goal import Goal, Rating
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.lesson_13.designs import Asked, cases_of, judged, ops, w_at_once

COSTS = Costs(forward=2, backward=4)  # of a device's share: F, I and W of one of its two stages take 1 each


@reserved
@cache
def asked(p: int, m: int) -> Asked:
    """From 1F1B with shallower warm-ups, in the memory of V-Half, to V-Half."""
    half = simulate(build_schedule("v-half", p, m), COSTS)
    limit = max(half.peak_microbatches)
    plain = simulate(with_warmups([min(p - 1 - r, int(limit) - 1) for r in range(p)], m), COSTS)
    homes = (*range(p), *reversed(range(p)))
    where = "stages r and 2p - 1 - r belong on device r"
    return Asked(Goal(p, m, 2, COSTS, limit), homes, plain.makespan, half.makespan, where)


def _setting(p: int, m: int) -> dict[str, Any]:
    limit = round(2 * asked(p, m).goal.limits[0])
    return {"p": p, "m": m, "limit": limit}


def _drawn(random: Random) -> list[Case]:
    many = [(p, random.randint(p + 1, 2 * p + 4)) for p in (random.randint(2, 6) for _ in range(4))]
    few = [(p, random.randint(2, p - 1)) for p in (random.randint(3, 7) for _ in range(2))]
    return cases_of([_setting(p, m) for p, m in (*many, *few)])


def _ask(call: Call, case: Case) -> Any:
    return call("fold", case["p"], case["m"], case["limit"])


def _judge(case: Case, data: Any) -> Finding | None:
    p, m = case["p"], case["m"]
    finding, _ = judged(case, data, f"fold({p}, {m}, {case['limit']})", asked(p, m), _why)
    return finding


def _why(rating: Rating) -> str:
    table, p = rating.schedule, rating.goal.devices
    if not rating.fits:
        r = rating.over_limit[0]
        most, limit = round(2 * rating.held[r]), round(2 * rating.goal.limits[r])
        return (
            f"That is {most} pairs of a stage and a micro-batch, and the limit is {limit}. Both of its stages count, "
            "until W is over."
        )
    if _alone(table) and rating.goal.microbatches > 1:
        return "You run one micro-batch at a time, and there is room for more."
    if w_at_once(table):
        return "Each W follows its I at once. Others wait for an I, and nobody waits for a W: put it off."
    if any(len(row) - len(row.lstrip("F")) == 1 for row in ops(table)[: p - 1]) and rating.goal.microbatches > 1:
        return "A device waits with one F alone. As long as there is room for it and its second stage, take one more."
    return ""


def _alone(table: Schedule) -> bool:
    """Whether device 0 has one micro-batch after the other."""
    order = [action.microbatch for _, _, action in table.actions() if action.stage == 0]
    return order == sorted(order)


EXERCISE = Exercise(
    name="half_the_memory",
    lesson="13_design_your_own",
    title="Half the memory",
    answers=("fold",),
    parts={"sound": 1, "half of the way": 1, "three quarters": 2},
    visible=cases_of([_setting(p, m) for p, m in ((2, 2), (3, 2), (3, 3), (4, 4), (4, 8))]),
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
