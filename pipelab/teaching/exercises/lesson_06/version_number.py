"""Exercise of lesson 6: which version of its weights does a stage use for a micro-batch?"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from pipelab.schedules import build_schedule
from pipelab.schedules.reserved import reserved
from pipelab.schedules.updates import over, versions
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import read_whole

METHODS = {"pipedream": "PipeDream", "vertical-sync": "vertical sync", "2bw": "2BW"}
Rule = Callable[[int, int], int]  # (stage, micro-batch) -> version


def _case(method: str, p: int, every: int = 1) -> Case:
    words = f"{METHODS[method]}, p = {p}" + (f", an update every {every} micro-batches" if method == "2bw" else "")
    return Case(method, {"_method": method, "_p": p, "_every": every, "_words": words})


def _drawn(random: Random) -> list[Case]:
    cases = [_case(method, random.randint(2, 9)) for method in ("pipedream", "vertical-sync") for _ in range(3)]
    sizes = [(p, p + random.randint(0, 7)) for p in (random.randint(2, 6) for _ in range(3))]
    return [*cases, *(_case("2bw", p, every) for p, every in sizes)]


def _count(case: Case) -> int:
    """How many micro-batches there are."""
    return 9 * int(case["_every"]) if case.part == "2bw" else 6 * int(case["_p"]) + 7


def _asked(case: Case) -> list[int]:
    """Which of them are asked about: all at the start, then some."""
    count = _count(case)
    first = 4 * int(case["_every"]) if case.part == "2bw" else 2 * int(case["_p"]) + 2
    return sorted({*range(first), *range(first, count, 7), count - 1})


@reserved
def used(method: str, p: int, every: int, count: int) -> list[list[int]]:
    """The version of each stage for each of ``count`` micro-batches, as the engine uses them."""
    if method == "2bw":
        schedule = over(build_schedule(method, p, every), -(-count // every))
    else:
        schedule = build_schedule(method, p, count)
    found: list[list[int]] = [[0] * schedule.microbatches for _ in range(p)]
    for forward, version in versions(schedule).items():
        found[forward.stage][forward.microbatch] = version
    return [row[:count] for row in found]


def _ask(call: Call, case: Case) -> Any:
    p, every = case["_p"], case["_every"]
    last = [every] if case["_method"] == "2bw" else []
    asked = [(s, i) for s in range(p) for i in _asked(case)]
    Random(p).shuffle(asked)  # a function of its arguments knows no order
    found = {(s, i): call("version", case["_method"], p, s, i, *last) for s, i in asked}
    return [[found[s, i] for i in _asked(case)] for s in range(p)]


def _judge(case: Case, data: Any) -> Finding | None:
    p, every, count = case["_p"], case["_every"], _count(case)
    if not isinstance(data, list) or len(data) != p or any(not isinstance(row, list) for row in data):
        raise Refused(f"{case.words}: there should be an answer for each stage and micro-batch")
    asked = _asked(case)
    if any(len(row) != len(asked) for row in data):
        raise Refused(f"{case.words}: there should be an answer for each stage and micro-batch")
    where = [(i, s) for i in asked for s in range(p)]
    given = {
        (i, s): read_whole(data[s][k], f"{case.words}: stage {s}, micro-batch {i}")
        for k, i in enumerate(asked)
        for s in range(p)
    }
    truth = used(case["_method"], p, every, count)
    wrong = next(((i, s) for i, s in where if given[i, s] != truth[s][i]), None)
    if wrong is None:
        return None
    i, s = wrong
    start = (
        f"{case.words}: stage {s} runs micro-batch {i} with version {truth[s][i]}; version returned {given[wrong]}. "
    )
    if given[wrong] < 0:
        return Finding(start + "There is none below 0: version 0 is what the stage began with.")
    for rule, why in _mistakes(case["_method"], p, every):
        if all(given[i, s] == rule(s, i) for i, s in where):
            return Finding(start + why)
    return Finding(start + _reason(case, s, i, truth[s][i]))


def _mistakes(method: str, p: int, every: int) -> list[tuple[Rule, str]]:
    """Rules that are often taken for the right one, each with what is wrong with it."""

    def pipedream(s: int, i: int) -> int:
        return max(0, i - (p - 1 - s))

    def newest(s: int, i: int) -> int:
        return i // every

    if method == "2bw":
        return [
            (newest, "That is as if the batch before were over. The next batch begins while its backwards still run."),
            (
                lambda s, i: max((i - 1) // every - 1, 0),
                "The published formula has k - 1, because it counts micro-batches from 1. Here the first is 0.",
            ),
            (
                lambda s, i: i // every % 2,
                "Two versions are kept, but they are not called even and odd: each update makes a new number.",
            ),
            (lambda s, i: max(i // every - 2, 0), "That is one update too old: only two versions are kept."),
            (pipedream, "That is PipeDream's, with an update after each backward. Here m backwards make one update."),
        ]
    shared: list[tuple[Rule, str]] = [
        (newest, "That counts one update per earlier micro-batch. Some of their backwards have not run yet."),
        (
            lambda s, i: max(0, i - s),
            "That counts the stages before this one. An update waits for a gradient, which comes from those behind it.",
        ),
        (lambda s, i: 0, "The weights do change: each backward is followed by an update."),
    ]
    if method == "pipedream":
        return [
            *shared,
            (
                lambda s, i: max(0, i - (p - s)),
                "That is one update too old. A device runs a forward, then the backward that it waited for: p - 1 - s "
                "forwards come before the first such pair.",
            ),
            (
                lambda s, i: max(0, i - (p - 1)),
                "That is vertical sync: all stages use what the first stage used. In PipeDream each stage uses its own "
                "newest version.",
            ),
        ]
    return [
        (pipedream, "That is the stage's own newest version. Vertical sync uses the one that the first stage used."),
        (lambda s, i: max(0, i - p), "That is one too old. The first stage runs p - 1 forwards before its first pair."),
        *shared,
    ]


def _reason(case: Case, s: int, i: int, version: int) -> str:
    p, every = case["_p"], case["_every"]
    if case.part == "2bw":
        return (
            f"Micro-batch {i} belongs to batch {i // every}, both counted from 0. A batch is computed with the version "
            "before the newest that there can be, and the first two with version 0."
        )
    first = s if case.part == "pipedream" else 0
    sync = " Vertical sync takes that of stage 0 for all stages." if case.part == "vertical-sync" else ""
    return (
        f"In 1F1B's order stage {first} runs {_count_of(p - 1 - first, 'forward')} before its first pair of a forward "
        f"and a backward. When {first}F{i} begins, it has run {_count_of(version, 'backward')} and as many "
        f"updates.{sync}"
    )


def _count_of(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


EXERCISE = Exercise(
    name="version_number",
    lesson="06_without_a_flush",
    title="Which version?",
    answers=("version",),
    parts={"pipedream": 1, "vertical-sync": 1, "2bw": 1},
    visible=[
        *(_case(method, p) for method in ("pipedream", "vertical-sync") for p in (1, 2, 3, 4)),
        *(_case("2bw", p, every) for p, every in ((2, 2), (2, 3), (4, 4), (4, 6))),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
