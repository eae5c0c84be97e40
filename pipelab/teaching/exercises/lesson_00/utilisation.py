"""Exercise of lesson 0: reading a timetable."""

from __future__ import annotations

from random import Random
from typing import Any

from pipelab.schedules import build_schedule
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import close, read_number

PER_CENT = "half of all time is 0.5, not 50"


def grid(name: str, p: int, m: int) -> list[list[str]]:
    """A schedule's timetable under tF = tB = 1: one row per device, one cell per slot, ``"."`` where it idles."""
    lines = str(build_schedule(name, devices=p, microbatches=m)).splitlines()[1:]
    return [line.partition("|")[2].split() for line in lines]


def _cases() -> list[Case]:
    tiny = [["0F0", "0B0"]]
    uneven = [["0F0", "0F1", ".", ".", "0B0", "0B1"], [".", "1F0", "1B0", ".", ".", "."]]
    forward = [["0F0", "0F1", "0F2", "."], [".", "1F0", "1F1", "1F2"]]
    return [
        Case("one micro-batch", {"_rows": grid("gpipe", 3, 1), "_words": "1 micro-batch on 3 devices"}),
        Case("any table", {"_rows": tiny, "_words": "1 device that never idles"}),
        Case("any table", {"_rows": forward, "_words": "2 devices that only run forwards"}),
        Case("any table", {"_rows": uneven, "_words": "2 devices, the second of which does less"}),
        Case("any table", {"_rows": grid("1f1b", 4, 4), "_words": "4 micro-batches on 4 devices"}),
        Case("any table", {"_rows": grid("1f1b", 3, 7), "_words": "7 micro-batches on 3 devices"}),
    ]


def _drawn(random: Random) -> list[Case]:
    sizes = [(random.randint(2, 8), random.randint(2, 24)) for _ in range(4)]
    alone = [(p, 1) for p in random.sample(range(2, 12), 3)]
    one = [
        Case("one micro-batch", {"_rows": grid("gpipe", p, m), "_words": f"1 micro-batch on {p} devices"})
        for p, m in alone
    ]
    return [
        *one,
        *(
            Case("any table", {"_rows": grid("gpipe", p, m), "_words": f"{m} micro-batches on {p} devices"})
            for p, m in sizes
        ),
    ]


def _ask(call: Call, case: Case) -> Any:
    return call("utilisation", case["_rows"])


def _judge(case: Case, data: Any) -> Finding | None:
    rows = case["_rows"]
    given = _read(case, data)
    cells, slots = [cell for row in rows for cell in row], len(rows[0])
    busy = sum(cell != "." for cell in cells)
    wanted = busy / len(cells)
    if close(given, wanted):
        return None
    start = f"{case.words}: utilisation returned {given:.4g}. "
    if close(given, 1 - wanted):
        why = "That is the idle fraction of device time, the bubble fraction. Return the busy fraction."
    elif close(given, busy / slots):
        why = f"That divides the busy cells of all {len(rows)} devices by the cells of one row. Divide by all cells."
    elif close(given, sum(cell != "." for cell in rows[0]) / slots):
        why = "That is device 0 alone. Count the cells of all devices."
    elif close(given, busy):
        why = "That is the number of busy cells. Divide it by the number of all cells."
    elif _per_cent(given, wanted):
        why = f"That is a percentage. Return a fraction between 0 and 1: {PER_CENT}."
    elif _per_cent(given, 1 - wanted):
        why = (
            f"That is the idle time, as a percentage. Return the busy time, as a fraction between 0 and 1: {PER_CENT}."
        )
    elif busy != len(cells) and close(given, busy / (len(cells) - busy)):
        why = "That is busy cells divided by idle cells. Divide by all cells, busy and idle."
    elif given in (0, 1):
        why = f"{busy} of {len(cells)} cells are busy. // rounds down to a whole number, / does not."
    else:
        why = f"{busy} of {len(cells)} cells are busy: those that are not '.'."
    return Finding(start + why)


def _read(case: Case, data: Any) -> float:
    """The number that came back; text such as "57.1 %" is told for what it is."""
    if isinstance(data, str) and data.strip().endswith("%"):
        raise Refused(
            f"{case.words}: utilisation returned the text {data[:40]!r}. Return a number between 0 and 1: {PER_CENT}."
        )
    return read_number(data, f"{case.words}: utilisation")


def _per_cent(given: float, fraction: float) -> bool:
    """Whether ``given`` is ``fraction`` in per cent, exactly or rounded to a whole number or to a few digits."""
    exact = 100 * fraction
    return close(given, exact) or (given > 1 and any(given == round(exact, digits) for digits in range(4)))


def reference(name: str, p: int, m: int) -> float:
    """The same figure from the simulator: what the cases are held against in tests."""
    return simulate(build_schedule(name, devices=p, microbatches=m), Costs(forward=1, backward=1)).utilisation


EXERCISE = Exercise(
    name="utilisation",
    lesson="00_start_here",
    title="How busy are the devices?",
    answers=("utilisation",),
    parts={"one micro-batch": 1, "any table": 1},
    visible=_cases(),
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
