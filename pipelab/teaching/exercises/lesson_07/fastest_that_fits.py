"""Exercise of lesson 7: which schedule is the fastest that fits?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Any

from pipelab.errors import ConfigurationError
from pipelab.schedules import Schedule, build_schedule
from pipelab.schedules.reserved import reserved
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import kind_of
from pipelab.teaching.exercises.lesson_07.halves import of_halves

NAMES = ("1f1b", "zb-h1", "zb-h2", "zb-v", "v-half", "v-min")
_GIVEN = ("t_forward", "t_input", "t_weight", "t_message", "share")
_NEAR = 1.05  # within 5 % of the best counts as best


@cache
def _tables(p: int, m: int) -> Mapping[str, str]:
    """Those that can be built, as text: they come with the case, because the catalogue is closed during a grade."""
    found = {}
    for name in NAMES:
        try:
            found[name] = build_schedule(name, p, m).to_csv()
        except ConfigurationError:  # ZB-H2 needs many micro-batches
            continue
    return found


def _case(p: int, m: int, times: tuple[float, float, float], message: float, share: float) -> Case:
    part = "less memory" if share < 1 else "1F1B's memory or more"
    given = dict(zip(_GIVEN, (*times, message, share), strict=True))
    words = "p = {}, m = {}, tF = {:g}, tI = {:g}, tW = {:g}, a message {:g}, {:g} of 1F1B's memory"
    named = {f"_{name}": value for name, value in given.items()}
    told = words.format(p, m, *given.values())
    return Case(part, {**named, "_p": p, "_m": m, "_tables": _tables(p, m), "_words": told})


@dataclass(frozen=True)
class Ran:
    """What a table takes, and what each device holds, in full shares of a micro-batch."""

    makespan: float
    peaks: tuple[float, ...]


def _ran(case: Case, costs: Costs) -> dict[str, Ran]:
    runs = {name: simulate(Schedule.from_csv(text), costs) for name, text in case["_tables"].items()}
    return {name: Ran(run.makespan, run.peak_microbatches) for name, run in runs.items()}


def _costs(case: Case) -> Costs:
    return replace(of_halves(*(case[f"_{name}"] for name in _GIVEN[:3])), latency=case["_t_message"])


def _limit(case: Case) -> float:
    return case["_share"] * min(case["_p"], case["_m"])


def _fastest(runs: Mapping[str, Ran], limit: float) -> str:
    fits = [name for name, ran in runs.items() if max(ran.peaks) <= limit + 1e-9]
    return min(fits, key=lambda name: runs[name].makespan, default="none")


@reserved
def right_choice(case: Case) -> str:
    """The fastest that fits; ``"none"`` where nothing does."""
    return _fastest(_ran(case, _costs(case)), _limit(case))


def _drawn(random: Random) -> list[Case]:
    """No share times p or m comes near to what a table holds, except where it is meant to fit."""
    cases = []
    for share in (0.45, *random.choices((0.65, 0.85), k=4), *random.choices((1, 1.5, 2), k=6)):
        p = random.randint(2, 5)
        m = random.choice((random.randint(2, p), random.randint(2 * p - 1, 3 * p)))
        times = random.choice([(10, 10, 10), (10, 14, 6), (10, 6, 14), (10, 15, 12), (8, 12, 9)])
        cases.append(_case(p, m, times, random.choice((0, 2, 5, 10)), share))
    return cases


def _ask(call: Call, case: Case) -> Any:
    tables = {name: Schedule.from_csv(text, name=name) for name, text in case["_tables"].items()}
    return call("choose", tables, *(case[f"_{name}"] for name in _GIVEN))


def _judge(case: Case, data: Any) -> Finding | None:
    runs, limit, right = _ran(case, _costs(case)), _limit(case), right_choice(case)
    if not isinstance(data, str) or data not in (*NAMES, "none"):
        raise Refused(
            f"{case.words}: choose should return a name from `tables`, or 'none'; it returned {kind_of(data)}"
        )
    if data == right:
        return None
    start = f"{case.words}: choose returned '{data}'. "
    if data not in runs:
        missing = f"But '{right}' fits." if data == "none" else "It is not among the tables: ZB-H2 needs m >= 2p - 1."
        return Finding(start + missing + _mistake(case, data))
    mine = runs[data]
    full = max(range(case["_p"]), key=lambda r: mine.peaks[r])
    if mine.peaks[full] > limit + 1e-9:
        return Finding(
            f"{start}Its device {full} holds {mine.peaks[full]:g} micro-batches, and {limit:g} fit."
            f"{_mistake(case, data)}"
        )
    if mine.makespan <= _NEAR * runs[right].makespan:
        return None
    return Finding(
        f"{start}It fits and takes {mine.makespan:g}. But '{right}' fits too, and takes {runs[right].makespan:g}."
        f"{_mistake(case, data)}"
    )


def _mistake(case: Case, given: str) -> str:
    """The first of the usual mistakes that gives this answer."""
    return next((f" {why}" for name, why in _mistakes(case) if name == given), "")


def _mistakes(case: Case) -> list[tuple[str, str]]:
    runs, limit, share = _ran(case, _costs(case)), _limit(case), case["_share"]
    whole = Costs(case["_t_forward"], case["_t_input"] + case["_t_weight"], latency=case["_t_message"])
    doubled = {
        name: replace(ran, peaks=tuple(peak * (1 + ("v" in name.split("-"))) for peak in ran.peaks))
        for name, ran in runs.items()
    }
    first = {name: replace(ran, peaks=ran.peaks[:1]) for name, ran in runs.items()}
    fits = [name for name, ran in runs.items() if max(ran.peaks) <= limit + 1e-9]
    return [
        (_fastest(runs, share), "The limit is a share of what 1F1B's device 0 holds, not a number of micro-batches."),
        (_fastest(first, limit), "Device 0 is not always the fullest: look at all devices."),
        (_fastest(runs, 1e9), "It is the fastest of all, but the limit on memory counts first."),
        (
            _fastest(_ran(case, replace(_costs(case), latency=0)), limit),
            "It would be the fastest if messages took no time. A V sends twice as many: give Costs the latency.",
        ),
        (
            _fastest(_ran(case, whole), limit),
            "It would be the fastest if I and W took half of B each. Costs has input_gradient and weight_gradient.",
        ),
        (
            _fastest(_ran(case, replace(of_halves(), latency=case["_t_message"])), limit),
            "It would be the fastest at tF = tI = tW = 1. Give simulate the times of this case.",
        ),
        (
            _fastest(doubled, limit),
            "A micro-batch on one of two chunks is half a share. peak_microbatches counts it so.",
        ),
        (
            _fastest(_ran(case, replace(_costs(case), backward=1)), limit),
            "It would be the fastest if whole backwards took 1. 1F1B has whole ones: they take tI + tW.",
        ),
        (
            min(fits, key=lambda name: max(runs[name].peaks), default="none"),
            "It holds the least of those that fit. The fastest is asked for.",
        ),
    ]


EXERCISE = Exercise(
    name="fastest_that_fits",
    lesson="07b_does_it_pay",
    title="The fastest that fits",
    answers=("choose",),
    parts={"less memory": 1, "1F1B's memory or more": 2},
    visible=[
        _case(2, 2, (10, 10, 10), 0, 0.45),
        _case(3, 3, (10, 10, 10), 2, 0.85),
        _case(4, 3, (10, 14, 6), 5, 0.85),
        _case(4, 8, (10, 6, 14), 2, 0.65),
        _case(3, 4, (10, 6, 14), 0, 1),
        _case(4, 6, (10, 14, 6), 2, 1.5),
        _case(3, 3, (10, 14, 6), 0, 2),
        _case(3, 4, (10, 14, 6), 10, 1),
        _case(4, 8, (10, 10, 10), 10, 2),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
