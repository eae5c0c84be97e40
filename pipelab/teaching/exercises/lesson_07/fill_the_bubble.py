"""Exercise of lesson 7: move the W's of 1F1B to where the devices idle."""

from __future__ import annotations

from typing import Any

from pipelab.schedules import Schedule, actions_of, build_schedule
from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.judging import difference
from pipelab.teaching.exercises.lesson_07.halves import beyond_zb_h1, misshapen, read_csv


@reserved
def in_halves(p: int, m: int) -> list[list[str]]:
    """1F1B with each backward as I and W, one right behind the other: where the exercise begins."""
    rows = [[a for slot in row for a in actions_of(slot)] for row in build_schedule("1f1b", p, m).programs]
    return [[f"{a.stage}{op}{a.microbatch}" for a in row for op in ("IW" if a.op == "B" else a.op)] for row in rows]


def _ask(call: Call, case: Case) -> Any:
    return call("filled", case["_p"])


def _judge(case: Case, data: Any) -> Finding | None:
    p, m = case["_p"], case["_m"]
    table = read_csv(data, f"filled({p})", p)
    return misshapen(table, case, p, m) or _moved(table, case, p, m) or beyond_zb_h1(table, case, p, m)


def _moved(table: Schedule, case: Case, p: int, m: int) -> Finding | None:
    """The first place where something else than a W has moved."""

    def without_w(rows: list[list[str]]) -> list[list[str]]:
        return [[cell for cell in row if "W" not in cell] for row in rows]

    def why(device: int, position: int, mine: str, theirs: str) -> str:
        return f"1F1B runs {theirs or 'nothing'} there. The W's do not count here: move them, and nothing else."

    rows = [[str(a) for slot in row for a in actions_of(slot)] for row in table.programs]
    return difference(Schedule.from_rows(without_w(rows)), without_w(in_halves(p, m)), case, why)


def _case(p: int, m: int) -> Case:
    return Case(f"p = {p}", {"_p": p, "_m": m, "_words": f"p = {p}, m = {m}"})


EXERCISE = Exercise(
    name="fill_the_bubble",
    lesson="07_zero_bubble",
    title="Fill the bubble by hand",
    answers=("filled",),
    parts={"p = 3": 1, "p = 4": 2},
    visible=[_case(3, 4), _case(4, 5)],
    ask=_ask,
    judge=_judge,
)
