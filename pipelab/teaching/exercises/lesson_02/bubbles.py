"""Exercise of lesson 2: the bubble fraction, the bubble ratio, and the least m."""

from __future__ import annotations

from random import Random
from typing import Any

from pipelab.schedules import build_schedule
from pipelab.schedules.reserved import reserved
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.judging import close, read_number, read_whole


def _bubbles_drawn(random: Random) -> list[Case]:
    cases = []
    for _ in range(4):
        given = {
            "p": random.randint(2, 24),
            "m": random.randint(1, 96),
            "tF": random.randint(1, 8) / 2,
            "tB": random.randint(9, 20) / 2,
        }
        cases += [Case("fraction", given), Case("ratio", given)]
        cases.append(Case("least m", {"p": random.randint(2, 64), "percent": random.choice((25, 50, 60, 75, 95, 99))}))
    cases.append(Case("least m", {"p": 64, "percent": 99}))
    cases += [Case("least m", {"p": p, "percent": 90}) for p in (random.randint(5, 40), random.choice((4, 7, 13)))]
    return cases


def _bubbles_ask(call: Call, case: Case) -> Any:
    if case.part == "least m":
        return call("least_microbatches", case["p"], case["percent"])
    name = "bubble_fraction" if case.part == "fraction" else "bubble_ratio"
    return call(name, case["p"], case["m"], case["tF"], case["tB"])


def _bubbles_judge(case: Case, data: Any) -> Finding | None:
    return _judge_least(case, data) if case.part == "least m" else _judge_bubble(case, data)


def _judge_bubble(case: Case, data: Any) -> Finding | None:
    p, m, f, b = (case[name] for name in ("p", "m", "tF", "tB"))
    fraction = case.part == "fraction"
    name = "bubble_fraction" if fraction else "bubble_ratio"
    given = read_number(data, f"{case.words}: {name}")
    run = simulate(build_schedule("gpipe", p, m), Costs(forward=f, backward=b))
    wanted, other = (run.bubble_fraction, run.bubble_ratio)[:: 1 if fraction else -1]
    if close(given, wanted):
        return None
    idle, work = (p - 1) * (f + b), m * (f + b)
    each = f"Each device idles {idle:g} and works {work:g}, of {idle + work:g} in all."
    asked = "idle over all device-time" if fraction else "idle over busy device-time"
    part, ratio_with_p = (p / (m + p), p / m) if fraction else (p / m, p / (m + p))
    only_f = (p - 1) * f / ((p - 1) * f + work) if fraction else (p - 1) * f / work
    reasons = [
        (other, f"That is the bubble {'ratio, idle over busy' if fraction else 'fraction, idle over all'}."),
        (1 - wanted, "That is the busy part; the idle part is asked for."),
        (100 * wanted, "That is in per cent."),
        (part, f"That is with p for p - 1: the device itself does not make itself wait, {p - 1} others do."),
        (p / (m + p - 1), f"That is with p for p - 1 above the line: {p - 1} other devices make it wait."),
        (ratio_with_p, "That is the other measure, and with p for p - 1."),
        (idle, "That is the idle time of a device itself; divide it."),
        (p * idle, "That is the idle time of all devices itself; divide it."),
        (
            p * wanted,
            f"That is {p} times too large: if you count idle time of all devices, divide by all devices' time.",
        ),
        (only_f, f"That counts waiting for forwards alone; a device also waits {p - 1} backwards."),
    ]
    why = next((why for value, why in reasons if close(given, value)), "")
    if not why and (f, b) != (1, 1) and given != wanted:
        why = "The times of a forward and of a backward fall out of the quotient."
    return Finding(f"{case.words}: {name} returned {given:.6g}; {asked} is {wanted:.6g}. {why} {each}")


def _judge_least(case: Case, data: Any) -> Finding | None:
    p, percent = case["p"], case["percent"]
    given = read_whole(data, f"{case.words}: least_microbatches")
    wanted = least(p, percent)
    if given == wanted:
        return None
    start = f"{case.words}: least_microbatches returned {given}. "
    if given < 1:
        return Finding(start + "There is at least one micro-batch.")
    busy, enough = f"{given}/{given + p - 1}", 100 * given >= percent * (given + p - 1)
    if not enough:
        text = f"Too few: m / (m + p - 1) = {busy} = {given / (given + p - 1):.2%} is busy, {percent} % is asked for. "
        if given == wanted - 1:
            text += "A quotient that is no whole number is rounded up. "
        if given == least(p, 90):
            text += "It is what 90 % needs; here the target is another."
        elif given == -(-(100 - percent) * (p - 1) // percent):
            text += "Are percent and 100 - percent exchanged?"
        return Finding(start + text)
    text = f"It is enough ({busy} is busy), but so is {wanted}: {wanted}/{wanted + p - 1}. "
    if given == wanted + 1 and 100 * wanted == percent * (wanted + p - 1):
        text += (
            f"That is {percent} % exactly, and at least {percent} % is asked for. If you round up a floating-point "
            "quotient, it came out a hair above a whole number: stay with whole numbers."
        )
    elif given == max(1, -(-100 * (p - 1) // (100 - percent))):
        text += "That makes idle over *busy* time small enough, the bubble ratio; asked for is the part of all time."
    elif given == -(-percent * p // (100 - percent)):
        text += "That is with p for p - 1."
    elif given == least(p, 90):
        text += "It is what 90 % needs; here the target is another."
    return Finding(start + text)


@reserved
def least(p: int, percent: int) -> int:
    """The smallest m with m / (m + p - 1) >= percent / 100, by trying."""
    m = 1
    while 100 * m < percent * (m + p - 1):
        m += 1
    return m


_PRICES: list[dict[str, Any]] = [
    {"p": 3, "m": 2, "tF": 1, "tB": 2},  # in smaller cases wrong formulas agree with one another
    {"p": 3, "m": 1, "tF": 1, "tB": 1},
    {"p": 4, "m": 2, "tF": 1, "tB": 1},
    {"p": 4, "m": 4, "tF": 1, "tB": 1},
    {"p": 4, "m": 16, "tF": 1, "tB": 2},
    {"p": 5, "m": 12, "tF": 1.5, "tB": 4},
    {"p": 1, "m": 3, "tF": 1, "tB": 2},
]


EXERCISE = Exercise(
    name="bubbles",
    lesson="02_gpipe",
    title="Two bubbles",
    answers=("bubble_fraction", "bubble_ratio", "least_microbatches"),
    parts={"fraction": 1, "ratio": 1, "least m": 1},
    visible=[
        *(Case("fraction", given) for given in _PRICES),
        *(Case("ratio", given) for given in _PRICES),
        *(Case("least m", {"p": p, "percent": 90}) for p in (4, 2, 8)),
        *(Case("least m", {"p": p, "percent": q}) for p, q in ((3, 50), (4, 80), (6, 85), (2, 10), (1, 90))),
    ],
    drawn=_bubbles_drawn,
    ask=_bubbles_ask,
    judge=_bubbles_judge,
)
