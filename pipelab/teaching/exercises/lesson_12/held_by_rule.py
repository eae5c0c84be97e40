"""Exercise of lesson 12: does device r hold min(p - r, m) micro-batches?"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from pipelab.schedules import Schedule, build_schedule
from pipelab.schedules.reserved import reserved
from pipelab.schedules.warmups import with_warmups
from pipelab.simulation import simulate
from pipelab.teaching.exercises.definition import Call, Case, Exercise
from pipelab.teaching.exercises.lesson_12.evidence import PARTS, Known, both_parts, judge_by


def _given(name: str, p: int, m: int, v: int = 1, depths: Sequence[int] = ()) -> dict[str, Any]:
    told = f", v = {v}" if v > 1 else f" with warm-ups {list(depths)}" if depths else ""
    table = with_warmups(depths, m) if depths else build_schedule(name, p, m, v)
    return {"p": p, "m": m, "_v": v, "_table": table.to_csv(), "_words": f"{name}, p = {p}, m = {m}{told}"}


def _drawn(random: Random) -> list[Case]:
    p, q = random.randint(2, 6), random.randint(2, 4)
    deep = [p - 1 - r for r in range(p)]
    deep[random.randrange(p)] += 1
    return both_parts(
        [
            _given("1f1b", p, random.randint(1, 2 * p)),
            _given("gpipe", p, random.randint(p + 1, 2 * p)),
            _given("interleaved", q, 2 * q, 2),
            _given("1f1b's pattern", p, 2 * p, 1, deep),
        ]
    )


def _schedule(case: Case) -> Schedule:
    return Schedule.from_csv(case["_table"])


def _ask(call: Call, case: Case) -> Any:
    return call("held_by_rule", _schedule(case))


@reserved
def truth(case: Case) -> list[float]:
    """The most micro-batches in flight on each device, in full shares."""
    return list(simulate(_schedule(case)).peak_microbatches)


def _rule(case: Case) -> list[float]:
    return [min(case["p"] - r, case["m"]) for r in range(case["p"])]


def _holds(case: Case, figures: Sequence[float]) -> bool:
    return list(figures) == _rule(case)


def _known(case: Case, wanted: list[float]) -> Known:
    p, m, v = case["p"], case["m"], case["_v"]
    rows = [[a.op for a in row] for row in _schedule(case).programs]  # type: ignore[union-attr]
    known: Known = [
        (_rule(case), "That is the rule itself. A trial compares it with what the schedule does."),
        ([m] * p, "All forwards were counted. A backward lets its micro-batch go."),
        ([0.0] * p, "That is what is left at the end of the step. Take the most that is held at once."),
        ([peak * v for peak in wanted] if v > 1 else [], f"Each chunk counted in full. It is 1/{v} of a share."),
        ([max(wanted)] * p, "That is the fullest device, for all of them."),
        ([row.index("B") - 1.0 for row in rows], "The forward in front of the first backward is missing."),
    ]
    return [one for one in known if len(one[0]) == p]


EXERCISE = Exercise(
    name="held_by_rule",
    lesson="12b_papers_on_trial",
    title="Held by the rule?",
    answers=("held_by_rule",),
    parts=PARTS,
    visible=both_parts(
        [
            _given("1f1b", 2, 4),
            _given("1f1b", 4, 2),
            _given("1f1b", 3, 3),
            _given("gpipe", 3, 5),
            _given("interleaved", 2, 4, 2),
            _given("1f1b's pattern", 4, 8, 1, [3, 2, 2, 0]),
        ]
    ),
    ask=_ask,
    judge=judge_by(
        "held_by_rule",
        truth,
        _holds,
        _known,
        "The claim is true if each device r holds min(p - r, m), and no other number.",
    ),
    drawn=_drawn,
)
