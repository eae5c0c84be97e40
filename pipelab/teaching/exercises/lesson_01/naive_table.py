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
    times = [(3, 2, 1, 1, 0), (4, 4, 1, 1, 0), (2, 5, 1, 2, 0), (3, 3, 1.5, 1, 0), (3, 2, 1, 2, 0.5), (1, 4, 1, 1, 3)]
    return [
        *(Case("table", {"p": p}) for p in (1, 2, 3, 4, 8)),
        *(Case("time", {"p": p, "m": m, "tF": f, "tB": b, "latency": latency}) for p, m, f, b, latency in times),
    ]


def _naive_drawn(random: Random) -> list[Case]:
    drawn = [Case("table", {"p": random.randint(5, 12)}), Case("table", {"p": random.randint(13, 40)})]
    for _ in range(3):
        p, m = random.randint(2, 16), random.randint(2, 32)
        costs = {"tF": random.choice((1, 1.5, 2)), "tB": random.choice((1, 2, 2.5)), "latency": random.choice((0.3, 2))}
        drawn.append(Case("time", {"p": p, "m": m, **costs}))
    return drawn


def _ask_naive(call: Call, case: Case) -> Any:
    if case.part == "table":
        return call("naive_table", case["p"])
    return call("naive_time", *(case[name] for name in ("p", "m", "tF", "tB", "latency")))


def _judge_naive(case: Case, data: Any) -> Finding | None:
    return _judge_table(case, data) if case.part == "table" else _judge_time(case, data)


def _judge_table(case: Case, data: Any) -> Finding | None:
    p = case["p"]
    table = _timed(case, data)
    actions = [action for row in table.rows for slot in row if slot is not None for action in _of(slot)]
    if any(action.microbatch > 0 for action in actions):
        first = next(action for action in actions if action.microbatch > 0)
        return Finding(
            f"{case.words}: your table has {first}. The naive pipeline has only one micro-batch, number 0: the whole "
            "batch."
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
            f"{case.words}: device {r} runs {action}, but stage {action.stage} is not on it. Device r holds stage r. "
            "Devices and stages both count from 0.",
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
                f"{case.words}: the table can run, but device {r} runs {name} at t = {starts[r, name]}. Its input is "
                f"there at t = {t}, and no device waits longer than needed. (Time slots count from 0.)",
                partial(_drawing, table, case, [(r, starts[r, name])]),
            )
    extra = set(starts) - set(truth)
    if extra:
        r, name = min(extra)
        return Finding(
            f"{case.words}: device {r} also runs {name}. In the naive pipeline each device runs one F and one B.",
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
                "Every device starts at t = 0 here. In a pipeline a device has nothing to work on until the activation "
                "of the stage before it has come."
            )
        return "An activation moves down by one device in each time slot."
    if violation.code in ("too-early", "order") and action.op == "B" and blocker is not None and blocker.op == "B":
        return (
            "The gradient starts at the last device and moves up to the first. So backwards run in the reverse order "
            "of forwards."
        )
    if violation.code in ("too-early", "order") and action.op == "B":
        return "There is no gradient before the last stage has finished its forward. It comes back from there."
    return ""


def _drawing(table: TimeTable, case: Case, places: Sequence[tuple[int, int]]) -> Any:
    note = "Framed: the place in question." if places else ""
    return view.plot_table(table, title=f"Your table, {case.words}", marked=places, note=note)


def _judge_time(case: Case, data: Any) -> Finding | None:
    given = read_number(data, f"{case.words}: naive_time")
    p, m, f, b, latency = (case[name] for name in ("p", "m", "tF", "tB", "latency"))
    costs = Costs(forward=f, backward=b, latency=latency)
    wanted = simulate(build_schedule("naive", devices=p, microbatches=m), costs).makespan
    if close(given, wanted):
        return None
    fallback = "One device works at a time: add up all work, and the time of all messages."
    why = next((text for value, text in _slips(p, m, f, b, latency) if close(given, value)), fallback)
    return Finding(f"{case.words}: naive_time returned {given:g}, but the step takes {wanted:g}. {why}")


def _slips(p: int, m: int, f: float, b: float, latency: float) -> list[tuple[float, str]]:
    """Wrong times, the likeliest first, each with what was overlooked."""
    work, boundaries = p * m * (f + b), p - 1
    about_work: list[tuple[float, str]] = [
        (p * (f + b), f"That is the time of one micro-batch. Naive sends the whole batch, {m} times as much work."),
        (m * (f + b), f"That is how long one device works. The {p} devices work one after the other."),
        (
            (m + p - 1) * (f + b),
            "That is the time of a schedule that overlaps micro-batches on different devices. In the naive pipeline "
            "nothing overlaps: one device works at a time.",
        ),
        (p * m * f, "That is the time of the forwards. Each device also runs a backward."),
        (m * (f + b) / p, "That shares the work of one device among all. They do not share it: each does its own."),
        (2 * p * m, "That counts tF = tB = 1."),
        (2 * p, "That counts the time slots of the table. In each of them the whole batch runs, forward or backward."),
    ]
    both_ways = [(value + 2 * boundaries * latency, why) for value, why in about_work]
    if not latency:
        return both_ways
    if p == 1:
        return [*both_ways, (work + 2 * latency, "One device has nobody to send a message to.")]
    return [
        *both_ways,
        (work, f"That is the work alone. Each message takes {latency:g} as well, and no device works meanwhile."),
        (work + boundaries * latency, "That counts messages one way only. Gradients come back up as messages too."),
        (work + 2 * p * latency, f"Count the messages again: {p} devices have {boundaries} boundaries between them."),
        (
            work + 2 * boundaries * m * latency,
            "That counts a message for each micro-batch. Naive sends the whole batch as one piece, in one message.",
        ),
        *about_work,
    ]


EXERCISE = Exercise(
    name="naive_table",
    lesson="01b_by_hand",
    title="Naive for any p",
    answers=("naive_table", "naive_time"),
    parts={"table": 2, "time": 1},
    visible=_naive_cases(),
    drawn=_naive_drawn,
    ask=_ask_naive,
    judge=_judge_naive,
)
