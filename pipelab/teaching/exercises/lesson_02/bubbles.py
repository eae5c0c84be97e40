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
            "tR": random.choice((0, random.randint(1, 8) / 2)),
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
    return call(name, case["p"], case["m"], case["tF"], case["tB"], case["tR"])


def _bubbles_judge(case: Case, data: Any) -> Finding | None:
    return _judge_least(case, data) if case.part == "least m" else _judge_bubble(case, data)


def _judge_bubble(case: Case, data: Any) -> Finding | None:
    p, m, f, b, r = (case[name] for name in ("p", "m", "tF", "tB", "tR"))
    fraction = case.part == "fraction"
    name = "bubble_fraction" if fraction else "bubble_ratio"
    given = read_number(data, f"{case.words}: {name}")
    run = simulate(build_schedule("gpipe", p, m, recompute=r > 0), Costs(forward=f, backward=b, recompute=r))
    wanted, other = (run.bubble_fraction, run.bubble_ratio)[:: 1 if fraction else -1]
    if close(given, wanted):
        return None
    idle, work = (p - 1) * (f + b), m * (f + r + b)
    each = f"Each device is idle for {idle:g} and works for {work:g}, of {idle + work:g} in total."
    asked = "idle over total device time" if fraction else "idle over busy device time"
    reasons = [
        (other, f"That is the bubble {'ratio, idle over busy' if fraction else 'fraction, idle over total'}."),
        (100 * other, f"That is the bubble {'ratio' if fraction else 'fraction'}, and in per cent."),
        (1 - wanted, "That is the busy share; the idle share is asked for."),
        (100 * wanted, "That is in per cent; the answer is a plain number."),
        *(_without_recomputation(case, fraction) if r else ()),
        *_with_p(case, fraction),
        (idle, "That is the idle time of one device. Divide it."),
        (p * idle, "That is the idle time of all devices. Divide it."),
        (
            p * wanted,
            f"That is {p} times too large. If you count the idle time of all devices, divide by the time of all.",
        ),
        (
            _quotient((p - 1) * f, work, fraction),
            f"That counts only the wait for forwards. A device also waits for {p - 1} backwards.",
        ),
    ]
    cancel = "" if r or f == b else "Without recomputation tF and tB cancel: only p and m remain."
    why = next((why for value, why in reasons if close(given, value)), cancel)
    return Finding(f"{case.words}: {name} returned {given:.6g}, but {asked} is {wanted:.6g}. {why} {each}")


def _quotient(idle: float, work: float, fraction: bool) -> float:
    return idle / (idle + work) if fraction else idle / work


def _without_recomputation(case: Case, fraction: bool) -> list[tuple[float, str]]:
    """Wrong values where R is forgotten, or is charged to the idle time, each with its reason."""
    p, m, f, b, r = (case[name] for name in ("p", "m", "tF", "tB", "tR"))
    told = (
        f"R makes each device busy for longer, by m x tR = {m * r:g}. It does not wait for a gradient, so the idle "
        "time stays (p - 1)(tF + tB)."
    )
    return [
        (_quotient(p - 1, m, fraction), f"That is right without recomputation. {told}"),
        (_quotient(p - 1, m, not fraction), f"That is the other measure, and without recomputation. {told}"),
        (_quotient((p - 1) * (f + r + b), m * (f + b), fraction), f"That adds R to the idle time. {told}"),
    ]


def _with_p(case: Case, fraction: bool) -> list[tuple[float, str]]:
    """Wrong values with p in place of p - 1, each with its reason."""
    p, m, f, b, r = (case[name] for name in ("p", "m", "tF", "tB", "tR"))
    idle, work = (p - 1) * (f + b), m * (f + r + b)
    more = p * (f + b)
    return [
        (
            _quotient(more, work, fraction),
            f"That is with p in place of p - 1: a device waits for {p - 1} others, not for itself.",
        ),
        (more / (idle + work), f"That is with p in place of p - 1 above the line: a device waits for {p - 1} others."),
        (_quotient(more, work, not fraction), "That is the other measure, and with p in place of p - 1."),
    ]


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
        share = f"m / (m + p - 1) = {busy} = {given / (given + p - 1):.2%}"
        text = f"Too few: the busy share is {share}, and at least {percent} % is asked for. "
        if given == wanted - 1:
            text += "Round up a quotient that is not a whole number. "
        if given == least(p, 90):
            text += "It is what 90 % needs, but here the target is another."
        elif given == -(-(100 - percent) * (p - 1) // percent):
            text += "Did you exchange percent and 100 - percent?"
        return Finding(start + text)
    text = f"It is enough (the busy share is {busy}), but {wanted} is enough too: {wanted}/{wanted + p - 1}. "
    if given == wanted + 1 and 100 * wanted == percent * (wanted + p - 1):
        text += (
            f"That is {percent} % exactly, and at least {percent} % is asked for. If you round up a floating-point "
            "quotient, it came out a hair above a whole number. Use whole numbers."
        )
    elif given == max(1, -(-100 * (p - 1) // (100 - percent))):
        text += "Yours bounds idle over *busy* time, the bubble ratio. The question asks for busy over total time."
    elif given == -(-percent * p // (100 - percent)):
        text += "That is with p in place of p - 1."
    elif given == least(p, 90):
        text += "It is what 90 % needs, but here the target is another."
    return Finding(start + text)


@reserved
def least(p: int, percent: int) -> int:
    """The smallest m with m / (m + p - 1) >= percent / 100, by trying."""
    m = 1
    while 100 * m < percent * (m + p - 1):
        m += 1
    return m


_PRICES: list[dict[str, Any]] = [
    {"p": 3, "m": 2, "tF": 1, "tB": 2, "tR": 0},  # in smaller cases wrong formulas agree with one another
    {"p": 3, "m": 1, "tF": 1, "tB": 1, "tR": 0},
    {"p": 4, "m": 4, "tF": 1, "tB": 1, "tR": 0},
    {"p": 4, "m": 16, "tF": 1, "tB": 2, "tR": 0},
    {"p": 3, "m": 4, "tF": 1, "tB": 2, "tR": 1},
    {"p": 4, "m": 2, "tF": 1, "tB": 1, "tR": 1},
    {"p": 5, "m": 12, "tF": 1.5, "tB": 4, "tR": 1.5},
    {"p": 1, "m": 3, "tF": 1, "tB": 2, "tR": 1},
]


EXERCISE = Exercise(
    name="bubbles",
    lesson="02b_gradient_and_memory",
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
