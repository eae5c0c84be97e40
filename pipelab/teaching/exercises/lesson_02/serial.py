"""Exercise of lesson 2: micro-batches one after the other."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

from pipelab.schedules import Action, Schedule
from pipelab.schedules.action import actions_of
from pipelab.schedules.reserved import reserved
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.judging import close, difference, read_number, read_table
from pipelab.teaching.exercises.lesson_02.tables import picture_of, sized, stands_for, unit_run


@reserved
def serial_table(p: int, m: int) -> list[list[Action]]:
    """F0, B0, F1, B1, ... on every device."""
    return [[Action(r, op, i) for i in range(m) for op in "FB"] for r in range(p)]


def _serial_drawn(random: Random) -> list[Case]:
    cases = []
    for _ in range(3):
        p, m = random.randint(2, 12), random.randint(2, 40)
        cases.append(Case("table", {"p": p, "m": m}))
        costs = {"tF": random.randint(1, 9), "tB": random.randint(10, 29) / 2, "latency": random.randint(0, 4) / 2}
        cases.append(Case("makespan", {"p": p, "m": m, **costs}))
    return cases


def _serial_ask(call: Call, case: Case) -> Any:
    if case.part == "table":
        return call("serial_rows", case["p"], case["m"])
    return call("serial_makespan", case["p"], case["m"], case["tF"], case["tB"], case["latency"])


def _serial_judge(case: Case, data: Any) -> Finding | None:
    return _judge_serial_table(case, data) if case.part == "table" else _judge_serial_time(case, data)


def _judge_serial_table(case: Case, data: Any) -> Finding | None:
    p, m = case["p"], case["m"]
    schedule = read_table(data, f"{case.words}: serial_rows", p)
    finding = stands_for(schedule, case)
    if finding is not None:
        return finding
    run, picture = unit_run(schedule), partial(picture_of, schedule, case)
    under_way: dict[int, float] = {}  # micro-batch -> when its last action ends
    for span in run.spans:
        i = actions_of(span.slot)[0].microbatch
        under_way[i] = max(under_way.get(i, 0.0), span.end)
    entered: list[int] = []
    for span in sorted(run.spans, key=lambda span: span.start):
        action = actions_of(span.slot)[0]
        if action.microbatch in entered:
            continue
        before = next((i for i in entered if span.start < under_way[i] - 1e-9), None)
        if before is not None:
            return Finding(
                f"{case.words}: sound, but not serial: device {span.device} starts {action} at t = {span.start:g}, "
                f"but micro-batch {before} is under way until t = {under_way[before]:g}. These micro-batches overlap: "
                f"your table takes {run.makespan:g} units of time, the serial run takes {2 * p * m}.",
                picture,
            )
        entered.append(action.microbatch)

    def why(device: int, place: int, given: str, wanted: str) -> str:
        return (
            f"{wanted} belongs there: each micro-batch goes forward and back before the next, in the order of numbers."
        )

    return difference(schedule, serial_table(p, m), case, why)


def _judge_serial_time(case: Case, data: Any) -> Finding | None:
    p, m, f, b, latency = (case[name] for name in ("p", "m", "tF", "tB", "latency"))
    given = read_number(data, f"{case.words}: serial_makespan")
    costs = Costs(forward=f, backward=b, latency=latency)
    wanted = simulate(Schedule.from_rows(serial_table(p, m)), costs).makespan
    if close(given, wanted):
        return None
    border = f"A micro-batch crosses {p - 1} border{'' if p == 2 else 's'} between devices, down and up again"
    trip = f"A micro-batch passes {p} devices forward and {p} backward before the next one starts."
    work, sent = p * (f + b), (p - 1) * latency
    units = f"{trip} With tF = {f:g} and tB = {b:g} a forward and a backward are not one unit each."
    messages = [
        (m * work, f"That leaves out the messages. {border}: {2 * (p - 1)} messages."),
        (m * (work + sent), f"That counts each message in one direction. {border}."),
        (m * (work + 2 * p * latency), f"That counts p borders. {border}: {2 * (p - 1)} messages."),
        (m * work + 2 * sent, f"That counts the messages of one micro-batch. There are {m}, and each sends its own."),
        (
            m * (work + 2 * sent) + (m - 1) * latency,
            "No message goes from one micro-batch to the next: device 0 has it.",
        ),
    ]
    reasons = [
        ((m + p - 1) * (f + b), "That is GPipe's time, with overlap. Here no two micro-batches are under way at once."),
        (m * (f + b), f"That is the work of one device. {trip}"),
        (work + 2 * sent, "That is the way of one micro-batch. The others follow, each after the one before it."),
        (2 * p * m, units),
        (2 * m * work, f"That is twice the time: {p} devices x (tF + tB) covers both directions already."),
        (m * p * f, "That is the forwards alone."),
        (m * (work - 1), "Nothing overlaps, not even by one unit: the next one starts when B is over."),
        *(messages if latency else ()),
    ]
    return Finding(
        f"{case.words}: serial_makespan returned {given:.6g}, but running the table takes {wanted:.6g}. "
        + next((why for value, why in reasons if close(given, value)), f"{trip} {border}.")
    )


EXERCISE = Exercise(
    name="serial",
    lesson="02_gpipe",
    title="One after the other",
    answers=("serial_rows", "serial_makespan"),
    parts={"table": 1, "makespan": 1},
    visible=[
        *sized("table", (2, 1), (2, 2), (3, 2), (4, 4), (3, 7)),
        *sized("makespan", (3, 2), (4, 4), tF=1, tB=1, latency=0),
        *sized("makespan", (2, 1), (3, 2), (2, 5), (4, 4), tF=1, tB=2, latency=0),
        *sized("makespan", (5, 5), tF=3, tB=4.5, latency=0),
        *sized("makespan", (3, 4), (2, 5), (4, 4), (1, 3), tF=1, tB=2, latency=0.5),
    ],
    drawn=_serial_drawn,
    ask=_serial_ask,
    judge=_serial_judge,
)
