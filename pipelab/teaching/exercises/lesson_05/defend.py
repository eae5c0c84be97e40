"""Exercise of lesson 5: choose schedule and m under limits, and say why each neighbour loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import as_lists, kind_of, read_whole
from pipelab.teaching.exercises.lesson_05.best_m import NEAR
from pipelab.teaching.exercises.lesson_05.forecasts import COUNTS, FAMILIES, LATENCIES, forecasts

REASONS = ("memory", "messages", "recompute", "bubble", "granularity")

OTHERS: Mapping[tuple[int, int], tuple[tuple[str, int], ...]] = {
    (120, 0): (("1f1b", 2), ("1f1b", 32), ("1f1b + R", 8)),
    (42, 0): (("1f1b", 8), ("1f1b", 32), ("gpipe", 16), ("gpipe + R", 8)),
    (30, 0): (("1f1b", 16), ("1f1b", 24)),
    (120, 10): (("1f1b", 16), ("gpipe", 2), ("gpipe", 32), ("gpipe + R", 8)),
    (42, 10): (("gpipe", 8), ("1f1b", 16), ("gpipe + R", 3), ("gpipe + R", 32)),
}
"""What is named beside the best: under (limit in MB, latency in ms)."""

Row = Mapping[str, Any]


def find(schedule: str, m: int, latency: int) -> Row | None:
    """The row of one configuration."""
    key = (schedule, m, latency)
    return next((row for row in forecasts() if (row["schedule"], row["m"], row["latency"]) == key), None)


@reserved
def fastest(limit: float, latency: int) -> Row:
    """The best that fits."""
    rows = [row for row in forecasts() if row["latency"] == latency and row["peak"] <= limit]
    return min(rows, key=lambda row: float(row["step"]))


@reserved
def losses(row: Row, best: Row) -> dict[str, float]:
    """By how many milliseconds a row is behind the best, by the reason."""

    def split(r: Row) -> dict[str, float]:
        bare = r["schedule"].removesuffix(" + R")
        free, kept = find(r["schedule"], r["m"], 0), find(bare, r["m"], 0)
        assert free is not None
        assert kept is not None
        step = float(free["step"])
        again = step - float(kept["step"]) if bare != r["schedule"] else 0.0
        idle = float(kept["step"]) * kept["idle"] / 100
        busy = float(kept["step"]) - idle
        return {"messages": r["step"] - step, "recompute": again, "bubble": idle, "granularity": busy}

    mine, theirs = split(row), split(best)
    return {reason: mine[reason] - theirs[reason] for reason in mine}


@reserved
def reason_for(row: Row, limit: float) -> str:
    """Why a configuration loses against the best under ``limit``."""
    if row["peak"] > limit:
        return "memory"
    behind = losses(row, fastest(limit, row["latency"]))
    return max(behind, key=lambda reason: behind[reason])


def _cases(part: str, latencies: Sequence[int]) -> list[Case]:
    made = []
    for latency in latencies:
        for limit in (limit for limit, other in OTHERS if other == latency):
            words = f"limit {limit} MB, messages of {latency} ms"
            others = [list(other) for other in OTHERS[limit, latency]]
            made.append(Case(part, {"limit": limit, "latency": latency, "_others": others, "_words": words}))
    return made


def _ask(call: Call, case: Case) -> Any:
    return call("defend", case["limit"], case["latency"], [tuple(other) for other in case["_others"]])


def _judge(case: Case, data: Any) -> Finding | None:
    data = as_lists(data)
    if not isinstance(data, list):
        raise Refused(f"{case.words}: defend should return (schedule, m, reasons), it returned {kind_of(data)}")
    if len(data) != 3:
        entries = "1 entry" if len(data) == 1 else f"{len(data)} entries"
        raise Refused(f"{case.words}: defend should return (schedule, m, reasons), it returned {entries} instead of 3")
    if case.part == "reasons":
        return _judge_reasons(case, data[2])
    return _judge_choice(case, data[0], data[1])


def _judge_choice(case: Case, name: Any, count: Any) -> Finding | None:
    if not isinstance(name, str):
        raise Refused(f"{case.words}: the schedule should be a text such as 'gpipe + R', it is {kind_of(name)}")
    schedule, m = _family(name), read_whole(count, f"{case.words}: m")
    if schedule not in FAMILIES:
        raise Refused(f"{case.words}: the schedule should be one of {', '.join(FAMILIES)}, it is {name!r}")
    limit, latency = case["limit"], case["latency"]
    row = find(schedule, m, latency)
    start = f"{case.words}: you choose {schedule} with m = {m}. "
    if row is None:
        return Finding(f"{start}The forecasts have no such row. They have m = {', '.join(map(str, COUNTS))}.")
    if row["peak"] > limit:
        why = f"That needs {row['peak']:g} MB on the fullest device. "
        if schedule == "gpipe":
            why += "GPipe without recomputation holds the whole batch, for any m."
        elif m > 1:
            why += "At a fixed batch a larger m holds less."
        return Finding(start + why)
    best = fastest(limit, latency)
    if row["step"] <= NEAR * best["step"]:
        return None
    behind = losses(row, best)
    worst = max(behind, key=lambda reason: behind[reason])
    return Finding(
        f"{start}That runs, and takes {row['step']:g} ms. Another choice that fits is more than 5 % faster. Yours "
        f"loses {behind[worst]:.0f} ms {_LOSES[worst]}."
    )


_LOSES = {
    "messages": "waiting for messages (1F1B waits for them again and again in its steady phase)",
    "recompute": "to recomputation, which this limit does not ask for",
    "bubble": "to the bubble, because it has too few micro-batches",
    "granularity": "to fixed costs, because it has too many micro-batches",
}


def _family(name: str) -> str:
    """A schedule's name as the forecasts have it."""
    text = name.strip().lower().replace(" ", "")
    return text.removesuffix("+r") + " + R" if text.endswith("+r") else text


def _judge_reasons(case: Case, data: Any) -> Finding | None:
    others = case["_others"]
    data = as_lists(data)
    if isinstance(data, dict) and not {"set", "tensor", "other", "csv"} & set(data):
        data = [data.get(str(tuple(other))) for other in others]
    if not isinstance(data, list) or len(data) != len(others):
        raise Refused(f"{case.words}: the reasons should be a list of {len(others)} words, one for each of `others`")
    best = fastest(case["limit"], case["latency"])
    for (schedule, m), said in zip(others, data, strict=True):
        if not isinstance(said, str) or said.strip().lower() not in REASONS:
            raise Refused(f"{case.words}: a reason should be one of {', '.join(REASONS)}; one is {kind_of(said)}")
        row, word = find(schedule, m, case["latency"]), said.strip().lower()
        assert row is not None
        right = reason_for(row, case["limit"])
        if word != right:
            start = f"{case.words}: for {schedule} with m = {m} you say {word}. "
            return Finding(start + _why_not(row, best, case["limit"], word, right))
    return None


def _why_not(row: Row, best: Row, limit: float, word: str, right: str) -> str:
    if right == "memory":
        return f"It needs {row['peak']:g} MB, but the limit is {limit:g} MB. It does not run at all."
    if word == "memory":
        return f"It needs {row['peak']:g} MB, and the limit is {limit:g} MB, so it fits. It is slower than the best."
    behind = losses(row, best)
    if behind[word] <= 0:
        return f"It loses no time there against the best. It loses {behind[right]:.0f} ms elsewhere."
    return (
        f"That costs it {behind[word]:.0f} ms against the best. Something else costs it more: {behind[right]:.0f} ms."
    )


EXERCISE = Exercise(
    name="defend",
    lesson="05b_memory_wall",
    title="Defend it",
    answers=("defend",),
    parts={"free messages": 2, "slow messages": 2, "reasons": 2},
    visible=[*_cases("free messages", (0,)), *_cases("slow messages", (10,)), *_cases("reasons", LATENCIES)],
    ask=_ask,
    judge=_judge,
)
