"""Exercise of lesson 1: the naive timetable, for any p."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

from pipelab import view
from pipelab.errors import PipelabError
from pipelab.schedules import Action, TimeTable, build_schedule, check_schedule, format_slot
from pipelab.schedules.text import read_rows
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import close, kind_of, read_number


def _naive_cases() -> list[Case]:
    times = [(3, 2, 1, 1), (4, 4, 1, 1), (2, 5, 1, 2), (3, 3, 1.5, 1)]
    return [
        *(Case("table", {"p": p}) for p in (1, 2, 3, 4, 8)),
        *(Case("time", {"p": p, "m": m, "tF": f, "tB": b}) for p, m, f, b in times),
    ]


def _naive_drawn(random: Random) -> list[Case]:
    drawn = [Case("table", {"p": random.randint(5, 12)}), Case("table", {"p": random.randint(13, 40)})]
    for _ in range(3):
        p, m = random.randint(2, 16), random.randint(2, 32)
        drawn.append(Case("time", {"p": p, "m": m, "tF": random.choice((1, 1.5, 2)), "tB": random.choice((1, 2, 2.5))}))
    return drawn


def _ask_naive(call: Call, case: Case) -> Any:
    if case.part == "table":
        return call("naive_table", case["p"])
    return call("naive_time", case["p"], case["m"], case["tF"], case["tB"])


def _judge_naive(case: Case, data: Any) -> Finding | None:
    return _judge_table(case, data) if case.part == "table" else _judge_time(case, data)


def _judge_table(case: Case, data: Any) -> Finding | None:
    p = case["p"]
    table = _timed(case, data)
    actions = [action for row in table.rows for slot in row if slot is not None for action in _of(slot)]
    if any(action.microbatch > 0 for action in actions):
        first = next(action for action in actions if action.microbatch > 0)
        return Finding(
            f"{case.words}: your table has {first}, but in the naive pipeline there is one micro-batch, number 0: the "
            "whole batch."
        )
    astray = [
        (r, t, action)
        for r, row in enumerate(table.rows)
        for t, slot in enumerate(row)
        for action in (_of(slot) if slot is not None else ())
        if action.stage != r
    ]
    if astray:
        r, t, action = min(astray, key=lambda found: found[1])
        return Finding(
            f"{case.words}: device {r} runs {action}, but stage {action.stage} is not on it. Device r holds stage r, "
            "and both count from 0.",
            partial(_drawing, table, case, [(r, t)]),
        )
    violations = check_schedule(table)
    if violations:
        missing = [v for v in violations if v.code == "missing"]
        first_one = (missing or sorted(violations, key=lambda v: (v.position or 0, v.device)))[0]
        places = [] if first_one.position is None else [(first_one.device, first_one.position)]
        return Finding(
            f"{case.words}: {first_one.message}. {_reason(first_one)}".rstrip(), partial(_drawing, table, case, places)
        )
    truth = {(r, f"{r}F0"): r for r in range(p)} | {(r, f"{r}B0"): 2 * p - 1 - r for r in range(p)}
    starts = {
        (r, format_slot(slot)): t for r, row in enumerate(table.rows) for t, slot in enumerate(row) if slot is not None
    }
    for (r, name), t in sorted(truth.items(), key=lambda pair: pair[1]):
        if (r, name) not in starts:
            return Finding(
                f"{case.words}: device {r} has no {name}. Each device runs one forward and one whole backward (B).",
                partial(_drawing, table, case, []),
            )
        if starts[r, name] != t:
            return Finding(
                f"{case.words}: sound, but device {r} runs {name} at t = {starts[r, name]}, and all that it needs is "
                f"there at t = {t}. Columns count from 0, and nobody waits longer than needed.",
                partial(_drawing, table, case, [(r, starts[r, name])]),
            )
    extra = set(starts) - set(truth)
    if extra:
        r, name = min(extra)
        return Finding(
            f"{case.words}: device {r} also runs {name}; the naive pipeline is one F and one B per device.",
            partial(_drawing, table, case, [(r, starts[r, name])]),
        )
    return None


def _of(slot: Any) -> tuple[Action, ...]:
    return (slot,) if isinstance(slot, Action) else slot


def _timed(case: Case, data: Any) -> TimeTable:
    """What came as a timed table, idle columns behind the last action left out."""
    what = f"{case.words}: naive_table"
    if not isinstance(data, list):
        raise Refused(f"{what} should return a list of rows, one per device; it returned {kind_of(data)}")
    if len(data) != case["p"]:
        raise Refused(f"{what} should return {case['p']} rows, one per device; it returned {len(data)}")
    strange = next((row for row in data if not isinstance(row, list)), None)
    if strange is not None:
        raise Refused(f"{what}: a row should be a list of cells such as '0F0' or '.', one is {kind_of(strange)}")
    try:
        rows = read_rows(data)
    except PipelabError as error:
        raise Refused(f"{what}: {error}") from None
    columns = max((t + 1 for row in rows for t, slot in enumerate(row) if slot is not None), default=0)
    return TimeTable(tuple((row + (None,) * columns)[:columns] for row in rows))


def _reason(violation: Any) -> str:
    """The classic mistake behind a violation, in the field's words."""
    action, blocker = violation.action, violation.blocker
    if violation.code == "too-early" and action.op == "F":
        if violation.position == 0:
            return (
                "Everyone starts at 0 here; in a pipeline a device has nothing to work on until the activation of the "
                "stage before it has come."
            )
        return "An activation goes down the devices one by one, one slot each."
    if violation.code in ("too-early", "order") and action.op == "B" and blocker is not None and blocker.op == "B":
        return (
            "The gradient comes from the last stage and goes up, from the last device to the first: backwards run in "
            "the reverse order of forwards."
        )
    if violation.code in ("too-early", "order") and action.op == "B":
        return "The gradient is known only when the last stage has finished its forward, and comes back from there."
    return ""


def _drawing(table: TimeTable, case: Case, places: Sequence[tuple[int, int]]) -> Any:
    note = "Framed: the place in question." if places else ""
    return view.plot_table(table, title=f"Your table, {case.words}", marked=places, note=note)


def _judge_time(case: Case, data: Any) -> Finding | None:
    given = read_number(data, f"{case.words}: naive_time")
    p, m, f, b = (case[name] for name in ("p", "m", "tF", "tB"))
    wanted = simulate(build_schedule("naive", devices=p, microbatches=m), Costs(forward=f, backward=b)).makespan
    if close(given, wanted):
        return None
    slips: list[tuple[float, str]] = [
        (p * (f + b), f"That is the time of one micro-batch; naive sends the whole batch, {m} times as much work."),
        (m * (f + b), f"That is how long one device works; the {p} devices work one after the other."),
        (
            (m + p - 1) * (f + b),
            "That is the time of a schedule that overlaps micro-batches on different devices. In the naive pipeline "
            "nothing overlaps: one device works at a time.",
        ),
        (p * m * f, "Those are the forwards; each device also runs a backward."),
        (p * m * (f + b) / p**2, "Divided by the devices twice: the work of all of them is done one after the other."),
        (2 * p * m, "That counts tF = tB = 1."),
        (2 * p, "That counts the columns of the table; each of them is a forward or backward of the whole batch."),
    ]
    why = next((text for value, text in slips if close(given, value)), "One device works at a time: add up all work.")
    return Finding(f"{case.words}: naive_time returned {given:g}, it takes {wanted:g}. {why}")


EXERCISE = Exercise(
    name="naive_table",
    lesson="01_four_devices",
    title="Naive for any p",
    answers=("naive_table", "naive_time"),
    parts={"table": 2, "time": 1},
    visible=_naive_cases(),
    drawn=_naive_drawn,
    ask=_ask_naive,
    judge=_judge_naive,
)
