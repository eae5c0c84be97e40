"""Exercise of lesson 13: backwards in two halves, a slow link, and a little more memory: beat 1F1B."""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

from pipelab.schedules import Action, build_schedule
from pipelab.schedules.reserved import reserved
from pipelab.simulation import Costs, simulate
from pipelab.simulation.search.greedy import build, rules
from pipelab.teaching.design.goal import Goal, Rating
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.lesson_13.designs import Asked, cases_of, judged, ops, w_at_once

Setting = tuple[int, int, int, int, int, int, int]  # p, m, tF, tI, tW, message, limit
_NAMES = ("p", "m", "t_forward", "t_input", "t_weight", "t_message", "limit")
_TIMES = ((10, 10, 10), (10, 14, 6), (10, 6, 14), (8, 12, 9))


@reserved
@cache
def asked(p: int, m: int, f: int, i: int, w: int, message: int, limit: int) -> Asked:
    """From 1F1B to the best of the catalogue that fits, or of what greedy rules make."""
    costs = Costs(f, i + w, input_gradient=i, weight_gradient=w, latency=message)
    goal = Goal(p, m, costs=costs, memory_limit=limit)
    (problem,) = goal.problems
    made = (problem.timed(rows) for rule in rules() if (rows := build(problem, rule)) is not None)
    found = [timed.makespan for timed in made if timed is not None]
    found += [goal.best.makespan] if goal.best is not None else []
    return Asked(goal, tuple(range(p)), simulate(build_schedule("1f1b", p, m), costs).makespan, min(found))


def _given(setting: Setting) -> dict[str, Any]:
    words = "p = {}, m = {}, tF = {}, tI = {}, tW = {}, a message takes {}, at most {} micro-batches on a device"
    return {**dict(zip(_NAMES, setting, strict=True)), "_words": words.format(*setting)}


def _setting(case: Case) -> Setting:
    return tuple(case[name] for name in _NAMES)


def _drawn(random: Random) -> list[Case]:
    found = []
    for k in range(5):
        p = random.randint(2, 5)
        m = random.randint(p + 1, 3 * p) if k % 3 else random.randint(2, p)
        limit = min(m, p + random.choice((0, 1, p - 1)))
        found.append((p, m, *random.choice(_TIMES), random.choice((2, 4, 8)), limit))
    return cases_of([_given(setting) for setting in found])


def _ask(call: Call, case: Case) -> Any:
    return call("overlap", *_setting(case))


def _judge(case: Case, data: Any) -> Finding | None:
    setting = _setting(case)
    finding, _ = judged(case, data, f"overlap{setting}", asked(*setting), _why)
    return finding


def _why(rating: Rating) -> str:
    table, goal = rating.schedule, rating.goal
    rows = ops(table)
    first = [len(row) - len(row.lstrip("F")) for row in rows]
    if not rating.fits:
        r = rating.over_limit[0]
        if first[r] <= goal.limits[r]:
            return "Too many W are put off. A micro-batch is held until its W has run."
        return f"It runs {first[r]} F before its first I."
    short = next((r for r, row in enumerate(table.programs[:-1]) if _idle_with_room(rating, r, row[first[r]])), None)
    if short is None:
        at_once = "Each W follows its I at once, as in 1F1B. Others wait for an I, and nobody waits for a W."
        return at_once if w_at_once(table) else ""
    return (
        f"Device {short} waits for its first gradient with {first[short]} F done, and there is room for "
        f"{goal.limits[short]:g}. Messages make the way of a gradient longer: run more F meanwhile."
    )


def _idle_with_room(rating: Rating, r: int, after: Any) -> bool:
    """Whether device r idles before the action behind its first forwards, with memory and micro-batches left."""
    row = rating.timeline.on_device(r)
    done = next(k for k, span in enumerate(row) if span.slot == after)
    room = done < min(rating.goal.limits[r], rating.goal.microbatches)
    return room and isinstance(after, Action) and row[done].start > row[done - 1].end + 1e-9


EXERCISE = Exercise(
    name="slow_link",
    lesson="13_design_your_own",
    title="A slow link",
    answers=("overlap",),
    parts={"sound": 1, "half of the way": 1, "three quarters": 2},
    visible=cases_of(
        [
            _given(setting)
            for setting in (
                (2, 2, 10, 10, 10, 2, 2),
                (3, 2, 10, 14, 6, 4, 2),
                (3, 5, 10, 10, 10, 5, 3),
                (4, 8, 10, 6, 14, 4, 5),
                (4, 8, 10, 12, 8, 8, 7),
            )
        ]
    ),
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
