"""Exercise of lesson 7: write ZB-H1, and train with it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.judging import read_table, trained
from pipelab.teaching.exercises.lesson_07.halves import beyond_zb_h1, misshapen


def _sized(part: str, sizes: Sequence[tuple[int, int]]) -> list[Case]:
    return [Case(part, {"p": p, "m": m}) for p, m in sizes]


def _drawn(random: Random) -> list[Case]:
    many = [(p, random.randint(p + 1, 3 * p + 6)) for p in (random.randint(2, 8) for _ in range(3))]
    few = [(p, random.randint(2, p - 1)) for p in (random.randint(3, 10) for _ in range(3))]
    trained_with = _sized("gradients", [(random.choice((2, 3, 4, 6)), random.choice((8, 12)))])
    return [*_sized("m >= p", [*many, (8, 32)]), *_sized("m < p", [*few, (12, 5)]), *trained_with]


def _ask(call: Call, case: Case) -> Any:
    return call("zb_h1", case["p"], case["m"])


def _judge(case: Case, data: Any) -> Finding | None:
    p, m = case["p"], case["m"]
    table = read_table(data, f"zb_h1({p}, {m})", p)
    found = misshapen(table, case, p, m) or beyond_zb_h1(table, case, p, m)
    if found is None and case.part == "gradients":
        return trained(table, case)
    return found


EXERCISE = Exercise(
    name="write_zb_h1",
    lesson="07_zero_bubble",
    title="Write ZB-H1",
    answers=("zb_h1",),
    parts={"m >= p": 2, "m < p": 1, "gradients": 1},
    visible=[
        *_sized("m >= p", [(2, 3), (3, 5), (4, 4), (4, 8)]),
        *_sized("m < p", [(3, 2), (4, 1), (5, 3)]),
        *_sized("gradients", [(4, 8)]),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
