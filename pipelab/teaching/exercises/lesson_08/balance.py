"""Exercise of lesson 8: the load-balance score of a measured step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from random import Random
from statistics import fmean, median, pstdev, stdev
from typing import Any

from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.judging import as_lists, close, read_number

Rows = Sequence[Sequence[float]]  # (device, start, end)


@reserved
def busy_times(rows: Rows, devices: int) -> list[float]:
    """Seconds in which each device works."""
    return [sum(end - start for device, start, end in rows if device == r) for r in range(devices)]


@reserved
def score(busy: Sequence[float]) -> float:
    """Mean over max."""
    return fmean(busy) / max(busy)


def _case(part: str, devices: int, rows: Rows) -> Case:
    shown = ", ".join(f"({d}, {start:g}, {end:g})" for d, start, end in rows) if len(rows) <= 5 else f"{len(rows)} rows"
    return Case(part, {"_devices": devices, "_rows": [list(row) for row in rows], "_words": f"p = {devices}, {shown}"})


def _step(random: Random, devices: int, idle: Sequence[int] = ()) -> Rows:
    """One step of a long run: each device has slots of its own length, gaps between them, and its own first start."""
    begin, rows = random.randint(0, 40), []
    for r in range(devices):
        now, each = float(begin + random.randint(0, 3)), random.randint(1, 6)
        for _ in range(random.randint(2, 6) if r not in idle else 0):
            length = each + random.choice((0, 0, 0.25, 0.5))
            rows.append((r, now, now + length))
            now += length + random.choice((0, 0, 1, 2.5))
    random.shuffle(rows)
    return rows


def _drawn(random: Random) -> list[Case]:
    cases = [_case(EVERY, p, _step(random, p)) for p in random.choices(range(2, 9), k=5)]
    for p in random.choices(range(3, 9), k=5):
        idle = random.sample(range(p), random.randint(1, p - 2))
        cases.append(_case(SOME, p, _step(random, p, idle)))
    return cases


def _ask(call: Call, case: Case) -> Any:
    return call("balance", [(int(device), start, end) for device, start, end in case["_rows"]], case["_devices"])


def _judge(case: Case, data: Any) -> Finding | None:
    data = as_lists(data)
    given = read_number(data[0] if isinstance(data, list) and len(data) == 1 else data, f"{case.words}: balance")
    busy = busy_times(case["_rows"], case["_devices"])
    if close(given, score(busy)):
        return None
    shown = ", ".join(f"{time:g}" for time in busy)
    return Finding(
        f"{case.words}: balance returned {given:.5g}. The devices are busy for {shown}. {_mistake(given, case, busy)}"
    )


def _mistake(given: float, case: Case, busy: Sequence[float]) -> str:
    rows, p = case["_rows"], case["_devices"]
    working = [time for time in busy if time]
    counts = Counter(int(row[0]) for row in rows)
    first, last = min(row[1] for row in rows), max(row[2] for row in rows)
    own = [[row for row in rows if row[0] == r] or [(r, 0.0, 0.0)] for r in range(p)]
    spans = [max(row[2] for row in mine) - min(row[1] for row in mine) for mine in own]
    lengths = [row[2] - row[1] for row in rows]
    latest = [mine[-1][2] - mine[-1][1] for mine in own]
    ends = [sum(row[2] for row in mine) for mine in own]
    right, mean = score(busy), fmean(busy)
    idle = len(working) < p
    known = [
        (
            fmean(working) / max(working) if idle else math.nan,
            f"That leaves the idle devices out of the mean. There are p = {p} devices, and one without a row counts 0.",
        ),
        (1 / right, "That is max over mean. The score is mean over max: 1 if all work alike, and less if they do not."),
        (
            min(busy) / max(busy),
            "That is min over max, which sees two devices only. How busy are the others? The mean knows.",
        ),
        (
            min(working) / max(working),
            "That is min over max, which sees two devices only. How busy are the others? The mean knows.",
        ),
        (
            1 - pstdev(busy) / mean,
            "That is 1 minus the relative spread. A step waits for the busiest device, so compare with the largest.",
        ),
        (
            1 - stdev(busy) / mean if p > 1 else math.nan,
            "That is 1 minus the relative spread. A step waits for the busiest device, so compare with the largest.",
        ),
        (
            sum(busy) / p / (last - first),
            "That is the mean utilisation: busy time over the makespan. It is low in fill and drain too, where the "
            "work is perfectly even. Divide by the busiest device's time.",
        ),
        (sum(busy) / p / last, "That divides by the last end. Divide by the busy time of the busiest device."),
        (
            len(rows) / p / max(counts.values()),
            "That counts rows. A device with few rows may have the long ones: add up end - start.",
        ),
        (
            fmean(spans) / max(spans),
            "That counts from a device's first start to its last end. The gaps between are not work.",
        ),
        (fmean(ends) / max(ends), "That adds up the ends. A row takes end - start."),
        (fmean(latest) / max(latest), "That has only the last row of each device. Add up all its rows."),
        (
            sum(lengths) / len(lengths) / max(lengths),
            "That is the mean row over the longest row. First add up the rows of each device.",
        ),
        (median(busy) / max(busy), "That is median over max. The score takes the mean."),
        (100 * right, "That is in per cent. Return a number from 0 to 1."),
        (round(right, 2), "That is rounded. Return all digits."),
        (1 - right, "That is the part of time the others lose. The score is 1 minus that."),
    ]
    for value, why in known:
        if close(given, value):
            return why
    return f"Their mean is {mean:.4g}, and the largest is {max(busy):g}."


EVERY, SOME = "every device works", "some devices idle"

EXERCISE = Exercise(
    name="balance",
    lesson="08_where_to_cut",
    title="The balance of a step",
    answers=("balance",),
    parts={EVERY: 1, SOME: 1},
    visible=[
        _case(EVERY, 1, [(0, 1, 3)]),
        _case(EVERY, 2, [(1, 4, 5), (1, 6, 9), (0, 5, 10), (0, 11, 17)]),
        _case(EVERY, 3, [(2, 6, 12), (2, 13, 15), (1, 8, 12), (0, 6, 11), (1, 14, 18)]),
        _case(EVERY, 4, _step(Random(4), 4)),
        _case(SOME, 3, [(2, 4, 9), (1, 8, 11), (1, 3, 6)]),
        _case(SOME, 4, [(1, 13, 19), (0, 8, 11), (0, 6, 7), (1, 6, 11), (3, 8, 10)]),
        _case(SOME, 2, [(0, 0, 2)]),
        _case(SOME, 6, _step(Random(6), 6, (0, 3))),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
