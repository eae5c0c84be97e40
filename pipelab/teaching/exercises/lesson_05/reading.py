"""Exercise of lesson 5: reading a sweep over m."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import as_lists, kind_of, read_whole
from pipelab.teaching.exercises.lesson_05.best_m import NEAR
from pipelab.teaching.exercises.lesson_05.forecasts import BATCH, forecasts, simulated

REASONS = ("memory", "bubble", "granularity")
Row = Mapping[str, float]


# (m, batch, step in ms, idle in per cent, peak in MB): from the frozen profile, and with alpha / 4 and 2 beta.
_SLOW_ARITHMETIC = (
    (16, 64, 262.3, 16.7, 35.3),
    (1, 64, 807.3, 75.0, 114.5),
    (2, 64, 509.0, 60.1, 111.6),
    (4, 64, 361.4, 43.2, 111.5),
    (64, 64, 287.3, 5.4, 16.2),
)
_GPIPE_OF_FOUR = (
    (2, 8, 54.0, 60.3, 23.0),
    (4, 16, 76.3, 43.8, 36.1),
    (5, 20, 87.5, 38.7, 42.6),
    (8, 32, 120.9, 29.1, 62.3),
)
_1F1B_OF_FOUR = (
    (4, 16, 75.2, 43.0, 35.3),
    (1, 4, 42.9, 75.0, 16.4),
    (8, 32, 118.7, 27.7, 35.3),
    (16, 64, 206.4, 16.9, 35.3),
)
_BOTH_VARY = (
    (16, 64, 206.4, 16.9, 35.3),
    (9, 9, 73.4, 26.2, 16.2),
    (64, 64, 421.0, 8.6, 16.2),
    (4, 32, 119.4, 43.1, 60.7),
    (24, 72, 252.2, 12.9, 28.9),
    (5, 60, 187.1, 37.8, 86.1),
    (2, 8, 53.6, 60.0, 22.6),
    (3, 3, 36.0, 49.9, 14.7),
)


def _frozen(counts: Sequence[int]) -> Sequence[Sequence[float]]:
    """1F1B on a batch of 64, as the frozen profile has it."""
    rows = {row["m"]: row for row in forecasts() if row["schedule"] == "1f1b" and row["latency"] == 0}
    return [(m, BATCH, rows[m]["step"], rows[m]["idle"], rows[m]["peak"]) for m in counts]


def _swept(schedule: str, batches: Mapping[int, int], alpha: float, beta: float) -> Sequence[Sequence[float]]:
    """A sweep by simulation, ``batches`` from m to the batch."""
    rows = []
    for m, batch in batches.items():
        row = simulated(schedule, m, batch, alpha=alpha, beta=beta)
        rows.append((m, batch, row["step"], row["idle"], row["peak"]))
    return rows


def _case(schedule: str, rows: Sequence[Sequence[float]], limit: float) -> Case:
    name, counts = {"1f1b": "1F1B", "gpipe": "GPipe"}[schedule], ", ".join(f"{row[0]:g}" for row in rows)
    batches, slices = {row[1] for row in rows}, {row[1] / row[0] for row in rows}
    what = "several batches and sizes of micro-batch"
    if len(batches) == 1:
        what = f"a batch of {BATCH}"
    elif len(slices) == 1:
        what = "micro-batches of 4"
    words = f"{name}, {what}, m = {counts}, limit {limit:g} MB"
    made = [dict(zip(("m", "batch", "step", "idle", "peak"), row, strict=True)) for row in rows]
    part = "batch fixed" if len(batches) == 1 else "batch varies"
    return Case(part, {"_rows": made, "limit": limit, "_words": words})


def _drawn(random: Random) -> list[Case]:
    cases = []
    for _ in range(4):
        counts = [1, *random.sample((2, 3, 4, 6, 8, 10, 12), 4), *random.sample((16, 20, 24, 32, 64), 2)]
        random.shuffle(counts)
        factors = random.choice((0.3, 1.0, 3.0)) * random.uniform(0.8, 1.2), random.uniform(0.6, 2)
        rows = _swept("1f1b", dict.fromkeys(counts, BATCH), *factors)
        cases.append(_case("1f1b", rows, random.choice((38, 45, 70, 140))))
    for schedule in ("gpipe", "gpipe", "1f1b"):
        counts = [2, *random.sample((3, 4, 6, 8, 10, 12, 16, 20), 5)]
        rows = _swept(schedule, {m: 4 * m for m in counts}, random.uniform(0.5, 2), 1.0)
        cases.append(_case(schedule, rows, random.choice((40, 60, 80))))
    for _ in range(2):
        # Micro-batches of 1 in a small batch: the step is short, and what each sequence pays is mostly fixed costs.
        batches = {m: m * b for m, b in ((random.randint(14, 22), random.choice((4, 5))), (random.randint(8, 12), 1))}
        batches |= {64: 64 * random.randint(1, 2), 4: 4 * random.choice((6, 8)), 6: 6 * random.choice((12, 16)), 2: 6}
        batches |= {3: 3}  # much idle time, and more busy time too
        batches = dict(random.sample(sorted(batches.items()), len(batches)))
        cases.append(_case("1f1b", _swept("1f1b", batches, random.uniform(0.8, 1.3), 1.0), 65))
    return cases


def _ask(call: Call, case: Case) -> Any:
    return call("read_sweep", [dict(row) for row in case["_rows"]], case["limit"])


@reserved
def rate(row: Row) -> float:
    """Sequences per second."""
    return 1000 * row["batch"] / row["step"]


@reserved
def lost(row: Row, best: Row) -> tuple[float, float]:
    """(more idle time, more busy time) for a sequence than the best row has, in milliseconds."""

    def parts(r: Row) -> tuple[float, float]:
        each = r["step"] / r["batch"]
        return each * r["idle"] / 100, each * (1 - r["idle"] / 100)

    (idle, busy), (least_idle, least_busy) = parts(row), parts(best)
    return idle - least_idle, busy - least_busy


@reserved
def reasons_for(row: Row, best: Row, limit: float) -> tuple[str, ...]:
    """Why a row is not the choice; more than one where it could be called either, none where it is as good."""
    if row["peak"] > limit:
        return ("memory",)
    if rate(row) * NEAR >= rate(best):
        return ()
    idle, busy = lost(row, best)
    if min(idle, busy) > 0.7 * max(idle, busy):
        return ("bubble", "granularity")
    return ("bubble",) if idle > busy else ("granularity",)


def _judge(case: Case, data: Any) -> Finding | None:
    rows, limit = {int(row["m"]): row for row in case["_rows"]}, case["limit"]
    if not isinstance(data, list) or len(data) != 2:
        raise Refused(f"{case.words}: read_sweep should return (m, reasons), it returned {kind_of(data)}")
    data = as_lists(data)
    m = read_whole(data[0], f"{case.words}: the chosen m")
    start = f"{case.words}: you choose m = {m}. "
    if m not in rows:
        return Finding(f"{start}The sweep has no row with that m.")
    fitting = [row for row in rows.values() if row["peak"] <= limit]
    best = max(fitting, key=rate)
    mine = rows[m]
    if mine["peak"] > limit:
        return Finding(f"{start}That needs {mine['peak']:g} MB, but the limit is {limit:g} MB.")
    if rate(mine) * NEAR < rate(best):
        return Finding(start + _choice(mine, best, fitting))
    given = data[1]
    if not isinstance(given, dict) or {"set", "tensor", "other", "csv"} & set(given):
        raise Refused(f"{case.words}: the reasons should be a dict from m to a word, they are {kind_of(given)}")
    return _judge_reasons(case, given, rows, best, m)


def _choice(mine: Row, best: Row, fitting: Sequence[Row]) -> str:
    told = (
        f"It trains {rate(mine):.0f} sequences per second; m = {best['m']:g} trains {rate(best):.0f} within the limit."
    )
    if mine["step"] == min(row["step"] for row in fitting) and mine["batch"] != best["batch"]:
        return f"{told} Its step is the shortest because its batch is the smallest: {mine['batch']:g} sequences."
    if mine["idle"] == min(row["idle"] for row in fitting):
        return f"{told} It has the smallest bubble, but its devices are busy paying the fixed cost many times."
    return told


def _judge_reasons(
    case: Case, given: Mapping[str, Any], rows: Mapping[int, Row], best: Row, chosen: int
) -> Finding | None:
    limit = case["limit"]
    said = {_key(key): word for key, word in given.items()}
    for m, row in rows.items():
        right = reasons_for(row, best, limit)
        if not right or m == chosen:
            continue
        word = said.get(str(m))
        if word is None:
            keys = ", ".join(list(said)[:8]) or "nothing"
            return Finding(f"{case.words}: your dict has no reason for m = {m}. Its keys are: {keys}.")
        if not isinstance(word, str) or word.strip().lower() not in REASONS:
            raise Refused(f"{case.words}: a reason is one of {', '.join(REASONS)}; for m = {m} it is {kind_of(word)}")
        if word.strip().lower() not in right:
            return Finding(f"{case.words}: for m = {m} you say {word}. {_why(row, best, limit, word.strip().lower())}")
    return None


def _key(key: str) -> str:
    """m as text, of ``4``, ``"4.0"`` or ``tensor(4)``."""
    text = re.sub(r"^(?:tensor|array)\((\d+).*\)$", r"\1", key.strip(), flags=re.DOTALL)
    return text.split(".")[0] if re.fullmatch(r"\d+\.0*", text) else text


def _why(row: Row, best: Row, limit: float, word: str) -> str:
    if row["peak"] > limit:
        return (
            f"It needs {row['peak']:g} MB, but the limit is {limit:g} MB. It does not run, so its speed is irrelevant."
        )
    if word == "memory":
        return (
            f"It needs {row['peak']:g} MB, and the limit is {limit:g} MB, so it runs. It trains {rate(row):.0f} "
            f"sequences per second instead of {rate(best):.0f}."
        )
    idle, busy = lost(row, best)
    return (
        f"For each sequence its devices are idle {abs(idle):.2g} ms {_more(idle)} and busy {abs(busy):.2g} ms "
        f"{_more(busy)} than at m = {best['m']:g}.{_misread(row, best, word)}"
    )


def _misread(row: Row, best: Row, word: str) -> str:
    """A sentence, if ``word`` follows from a wrong reading of ``idle``, which is a fraction of the step in per cent.

    Two readings are known: as the ratio of idle to busy time, and as a fraction that was not divided by 100.
    """

    def told(split: Callable[[float, float], tuple[float, float]]) -> str:
        (idle, busy), (least_idle, least_busy) = (split(r["step"] / r["batch"], r["idle"]) for r in (row, best))
        return "bubble" if idle - least_idle > busy - least_busy else "granularity"

    if word == told(lambda each, idle: (each * idle / (100 + idle), each * 100 / (100 + idle))):
        return " idle is a fraction of the whole step. You may have used it as the ratio of idle to busy time."
    if word == told(lambda each, idle: (each * idle, each * (1 - idle))):
        return " idle is given in per cent. You may have forgotten to divide it by 100."
    return ""


def _more(value: float) -> str:
    return "longer" if value > 0 else "less"


EXERCISE = Exercise(
    name="reading",
    lesson="05b_memory_wall",
    title="Reading a sweep",
    answers=("read_sweep",),
    parts={"batch fixed": 2, "batch varies": 1},
    visible=[
        _case("1f1b", _frozen((2, 8, 64)), 150),
        _case("1f1b", _frozen((1, 2, 4, 8, 16, 32, 64)), 150),
        _case("1f1b", _frozen((2, 4, 8, 12, 16, 20, 32, 64)), 40),
        _case("1f1b", _SLOW_ARITHMETIC, 150),
        _case("gpipe", _GPIPE_OF_FOUR, 45),
        _case("1f1b", _1F1B_OF_FOUR, 45),
        _case("1f1b", _BOTH_VARY, 65),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
