"""Exercise of lesson 11b: when a second worker at a stage is worth its price."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from random import Random
from typing import Any

from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import as_lists, close, kind_of, read_number, read_whole
from pipelab.teaching.exercises.lesson_09.mistakes import the_only

_RATE, _GAIN, _BEST = "throughput", "one more worker", "best numbers"
_PARTS = {_RATE: "throughput", _GAIN: "gain", _BEST: "best_workers"}
Known = list[tuple[float, str]]


def _rate_case(seconds: Sequence[float], workers: Sequence[int]) -> Case:
    return _made(_RATE, seconds=list(seconds), workers=list(workers))


def _gain_case(
    seconds: Sequence[float], workers: Sequence[int], stage: int, prices: Sequence[float], worth: float
) -> Case:
    return _made(_GAIN, seconds=list(seconds), workers=list(workers), stage=stage, prices=list(prices), worth=worth)


def _best_case(seconds: Sequence[float], prices: Sequence[float], worth: float, most: int) -> Case:
    return _made(_BEST, seconds=list(seconds), prices=list(prices), worth=worth, most=most)


def _made(part: str, **given: Any) -> Case:
    words = ", ".join(f"{name} = {value}" for name, value in given.items())
    return Case(part, {"_given": list(given.values()), "_words": words})


def _drawn(random: Random) -> list[Case]:
    cases = []
    for _ in range(5):
        count = random.randint(2, 5)
        seconds = [random.randint(1, 12) / 4 for _ in range(count)]
        workers = [random.randint(1, 3) for _ in range(count)]
        prices = [random.randint(1, 8) / 8 for _ in range(count)]
        slowest = _slowest(seconds, workers)
        stage = random.choice((slowest, slowest, random.randrange(count)))
        worth = random.randint(1, 16) / 2
        cases += [_rate_case(seconds, workers), _gain_case(seconds, workers, stage, prices, worth)]
        tied = random.random() < 0.5
        cases.append(
            _best_case([seconds[0], *seconds[:-1]] if tied else seconds, prices, worth, random.randint(3, 6)),
        )
    return cases


def _slowest(seconds: Sequence[float], workers: Sequence[int]) -> int:
    return min(range(len(seconds)), key=lambda s: workers[s] / seconds[s])


def _ask(call: Call, case: Case) -> Any:
    return call(_PARTS[case.part], *case["_given"])


@reserved
def rate(seconds: Sequence[float], workers: Sequence[int]) -> float:
    """Items per second: the slowest stage sets the pace."""
    return min(count / time for time, count in zip(seconds, workers, strict=True))


@reserved
def profit(seconds: Sequence[float], prices: Sequence[float], worth: float, workers: Sequence[int]) -> float:
    """What comes in per second, minus what all workers cost."""
    paid = sum(price * count for price, count in zip(prices, workers, strict=True))
    return worth * rate(seconds, workers) - paid


@reserved
def best(seconds: Sequence[float], prices: Sequence[float], worth: float, most: int) -> list[int]:
    """The numbers of workers with the largest profit. For each possible pace, every stage gets as few as keep it."""
    paces = sorted({count / time for time in seconds for count in range(1, most + 1)})
    found = [[max(1, math.ceil(pace * time - 1e-9)) for time in seconds] for pace in paces]
    allowed = [workers for workers in found if max(workers) <= most]
    return max(allowed, key=lambda workers: profit(seconds, prices, worth, workers))


def _judge(case: Case, data: Any) -> Finding | None:
    if case.part == _BEST:
        return _judge_best(case, data, *case["_given"])
    given = read_number(data, f"{case.words}: {_PARTS[case.part]}")
    wanted, known = (_of_rate if case.part == _RATE else _of_gain)(*case["_given"])
    if close(given, wanted):
        return None
    why = the_only((close(given, value), why) for value, why in known)
    return Finding(f"{case.words}: {_PARTS[case.part]} returned {given:.6g} instead of {wanted:.6g}. {why}".rstrip())


def _of_rate(seconds: Sequence[float], workers: Sequence[int]) -> tuple[float, Known]:
    rates = [count / time for time, count in zip(seconds, workers, strict=True)]
    return rate(seconds, workers), [
        (1 / sum(seconds), "That is one item at a time. The stages work at the same time, on different items."),
        (1 / max(seconds), "That has one worker at each stage. A stage with w workers takes w items in its time."),
        (max(rates), "That is the fastest stage. It waits for the slowest, which sets the pace."),
        (sum(rates), "The stages' rates do not add up: each item needs all stages."),
        (1 / rate(seconds, workers), "That is the time between two results. The throughput is one over it."),
        (
            1 / sum(time / count for time, count in zip(seconds, workers, strict=True)),
            "You added up the stages. They work at the same time, so only the slowest counts.",
        ),
    ]


def _of_gain(
    seconds: Sequence[float], workers: Sequence[int], stage: int, prices: Sequence[float], worth: float
) -> tuple[float, Known]:
    more = [count + (s == stage) for s, count in enumerate(workers)]
    before, after = rate(seconds, workers), rate(seconds, more)
    own = 1 / seconds[stage]
    wanted = worth * (after - before) - prices[stage]
    return wanted, [
        (
            worth * own - prices[stage],
            "The stage became faster by that, but the whole flow did not: another stage sets the pace now.",
        ),
        (worth * (after - before), "The price of the worker is missing."),
        (
            worth * after - prices[stage],
            "That is all that comes in afterwards. The gain is the difference to what came in before.",
        ),
        (
            worth * before - prices[stage] if after == before else math.nan,
            "That is all that comes in. The gain is the difference to what came in before.",
        ),
        (
            worth * before / workers[stage] - prices[stage] if after == before else math.nan,
            "You let the throughput grow with the workers of this stage. It does so only while this stage is slowest.",
        ),
        (
            after - before,
            "That is the gain in items. An item has a worth, and the worker has a price.",
        ),
        (
            worth * (after - before) - sum(price * count for price, count in zip(prices, more, strict=True)),
            "The workers that were there before are paid in either case. Only the new one's price is added.",
        ),
        (-wanted if wanted else math.nan, "The sign is the wrong way round: a gain is above 0."),
        (max(0.0, wanted) if wanted < 0 else math.nan, "A worker that costs more than it brings has a gain below 0."),
    ]


def _judge_best(
    case: Case, data: Any, seconds: Sequence[float], prices: Sequence[float], worth: float, most: int
) -> Finding | None:
    data = as_lists(data)
    if not isinstance(data, list) or len(data) != len(seconds):
        what = kind_of(data) if not isinstance(data, list) else f"a list of {len(data)}"
        raise Refused(f"{case.words}: best_workers should return {len(seconds)} numbers in a list, it is {what}")
    given = [read_whole(item, f"{case.words}: best_workers, entry {s},") for s, item in enumerate(data)]
    start = f"{case.words}: best_workers returned {given}. "
    for s, count in enumerate(given):
        if not 1 <= count <= most:
            return Finding(f"{start}Stage {s} has {count} workers, and each stage needs 1 to {most}.")
    wanted = best(seconds, prices, worth, most)
    mine, theirs = (profit(seconds, prices, worth, workers) for workers in (given, wanted))
    if mine >= theirs or close(mine, theirs):
        return None
    return Finding(
        f"{start}That brings {mine:.4g} a second, and {wanted} brings {theirs:.4g}. "
        f"{_why_less(seconds, prices, worth, most, given, wanted)}"
    )


def _why_less(
    seconds: Sequence[float], prices: Sequence[float], worth: float, most: int, given: list[int], wanted: list[int]
) -> str:
    pace = rate(seconds, given)
    idle = [s for s, count in enumerate(given) if count > 1 and (count - 1) / seconds[s] >= pace * (1 - 1e-9)]
    if idle:
        s = idle[0]
        return f"At your pace of {pace:.4g} items a second, stage {s} does with {given[s] - 1} workers as well."
    slowest = [s for s, count in enumerate(given) if close(count / seconds[s], pace)]
    if rate(seconds, wanted) < pace:
        return "Your flow is faster, but the last workers cost more than their items bring."
    if len(slowest) > 1:
        return (
            f"Stages {' and '.join(map(str, slowest))} set the pace together. One more worker at one of them brings "
            "nothing. One more at each of them does."
        )
    steps = itertools.pairwise([given, *_steps(seconds, given, wanted)])
    first = next((after for before, after in steps if after != before), wanted)
    if profit(seconds, prices, worth, first) < profit(seconds, prices, worth, given):
        return "The next worker alone does not pay, but several more together do. Compare all numbers, not the next."
    return f"Stage {slowest[0]} sets the pace, and one more worker there brings more than it costs."


def _steps(seconds: Sequence[float], given: list[int], wanted: list[int]) -> list[list[int]]:
    """From ``given`` towards ``wanted``, a worker for the slowest stage each time."""
    steps, now = [], given
    while rate(seconds, now) < rate(seconds, wanted):
        slowest = _slowest(seconds, now)
        now = [count + (s == slowest) for s, count in enumerate(now)]
        steps.append(now)
    return steps


EXERCISE = Exercise(
    name="second_worker",
    lesson="11b_batches_and_streams",
    title="When is a second worker worth it?",
    answers=tuple(_PARTS.values()),
    parts={_RATE: 1, _GAIN: 1, _BEST: 2},
    visible=[
        _rate_case([2, 5, 1], [1, 2, 1]),
        _rate_case([2, 5, 1], [1, 1, 1]),
        _rate_case([2, 5, 1], [1, 3, 1]),
        _rate_case([0.5, 0.25], [1, 1]),
        _gain_case([2, 6, 1], [1, 1, 1], 1, [1, 0.5, 1], 12),
        _gain_case([2, 6, 1], [1, 2, 1], 1, [1, 2.5, 1], 12),
        _gain_case([4, 6, 1], [2, 1, 1], 0, [0.25, 0.5, 1], 12),
        _gain_case([4, 6, 1], [1, 1, 1], 1, [1, 0.5, 1], 12),
        _gain_case([4, 4], [1, 1], 0, [0.5, 0.5], 20),
        _best_case([3], [0.5], 6, 4),
        _best_case([2, 6, 1], [1, 0.5, 1], 12, 4),
        _best_case([4, 4], [0.5, 0.5], 20, 3),
        _best_case([2, 3, 1], [3, 2, 1], 8, 4),
        _best_case([6, 5, 1], [1, 1, 1], 20, 4),
        _best_case([1, 2], [0.5, 0.5], 1, 5),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
