"""Exercise of lesson 11b: latency, throughput and speed-up of a line of stages, and latency in a stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from statistics import fmean
from typing import Any

from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.judging import close, read_number
from pipelab.teaching.exercises.lesson_09.mistakes import the_only

_ALONE, _SPEEDUP, _STREAM = "alone", "speed-up", "stream"
_PARTS = {"latency": _ALONE, "rate": _ALONE, "speed_up": _SPEEDUP, "stream_latency": _STREAM}
Known = list[tuple[float, str]]


def _case(function: str, times: Sequence[float], *more: float) -> Case:
    names = {"speed_up": ["n"], "stream_latency": ["i", "every"]}.get(function, [])
    told = [f"{name} = {value:g}" for name, value in zip(names, more, strict=True)]
    words = ", ".join([f"times {list(times)}", *told])
    given = {"_function": function, "_times": list(times), "_more": list(more), "_words": words}
    return Case(_PARTS[function], given)


def _drawn(random: Random) -> list[Case]:
    cases = []
    for function in _PARTS:
        for _ in range(5):
            times = [random.randint(1, 40) / 4 for _ in range(random.randint(1, 6))]
            every = max(times) * random.choice((0, 0.25, 0.5, 1, 1.5))
            more: dict[str, list[float]] = {
                "speed_up": [random.randint(2, 60)],
                "stream_latency": [random.randint(1, 30), every],
            }
            cases.append(_case(function, times, *more.get(function, [])))
    return cases


def _ask(call: Call, case: Case) -> Any:
    return call(case["_function"], case["_times"], *case["_more"])


@reserved
def ends(times: Sequence[float], arrivals: Sequence[float]) -> list[float]:
    """When each item leaves a line of stages with one worker each, and room for all that waits."""
    free, left = [0.0] * len(times), []
    for now in arrivals:
        for s, time in enumerate(times):
            now = free[s] = max(now, free[s]) + time
        left.append(now)
    return left


@reserved
def truth(function: str, times: Sequence[float], *more: float) -> float:
    """What the learner's function should return."""
    if function == "latency":
        return ends(times, [0.0])[0]
    if function == "rate":
        return 1 / max(times)
    if function == "speed_up":
        n = int(more[0])
        return n * sum(times) / ends(times, [0.0] * n)[-1]
    i, every = int(more[0]), more[1]
    return ends(times, [k * every for k in range(i + 1)])[-1] - i * every


def _judge(case: Case, data: Any) -> Finding | None:
    function, times, more = case["_function"], case["_times"], case["_more"]
    given = read_number(data, f"{case.words}: {function}")
    wanted = truth(function, times, *more)
    if close(given, wanted):
        return None
    known: dict[str, Callable[..., Known]] = {
        "latency": _latency,
        "rate": _rate,
        "speed_up": _speed_up,
        "stream_latency": _stream,
    }
    why = the_only((close(given, value), why) for value, why in known[function](times, *more))
    return Finding(f"{case.words}: {function} returned {given:.6g} instead of {wanted:.6g}. {why}".rstrip())


def _latency(times: Sequence[float]) -> Known:
    longest, stages = max(times), len(times)
    return [
        (longest, "That is the time between two results. One item has to pass all stages, one after the other."),
        (fmean(times), "The stages do not share one item's work. It passes each of them, and all times add up."),
        (
            stages * longest,
            "An item alone waits for nobody. It takes each stage's own time, and not the longest at each.",
        ),
    ]


def _rate(times: Sequence[float]) -> Known:
    longest, total, stages = max(times), sum(times), len(times)
    return [
        (1 / total, "That is one item after the other. Here the next item enters as soon as the first stage is free."),
        (stages / total, "That would be right if all stages took the same time. The slowest one sets the pace."),
        (1 / min(times), "That is the quickest stage. It waits for the slowest, which sets the pace."),
        (longest, "That is the time between two results. The throughput is results per second, one over it."),
        (sum(1 / time for time in times), "The stages' rates do not add up: each item needs all stages."),
    ]


def _speed_up(times: Sequence[float], n: float) -> Known:
    longest, total, stages = max(times), sum(times), len(times)
    right = n * total / (total + (n - 1) * longest)
    return [
        (1 / right, "That is T_p / T_s. The speed-up says how many times as fast: T_s / T_p."),
        (
            n * stages / (n + stages - 1),
            "That is the formula for stages of equal length. Here the slowest stage sets the pace.",
        ),
        (
            n * total / ((n + stages - 1) * longest),
            "You counted the longest stage for all of them. The first item takes its own time, the sum.",
        ),
        (
            stages,
            "That is the bound for equal stages and endless work. Filling and unequal stages cost a part.",
        ),
        (total / longest, "That is the limit for many items. With n items, filling the pipeline counts too."),
        (
            n * total / (total + n * longest),
            "One item too many: the first one is in the sum already, and n - 1 follow it.",
        ),
        (n, "That would mean that all items run at once. Each stage has one worker."),
    ]


def _stream(times: Sequence[float], i: float, every: float) -> Known:
    longest, total = max(times), sum(times)
    late = total + i * (longest - every)
    known = [
        (
            total + (i + 1) * max(0.0, longest - every),
            "Items are counted from 0. So item 0 waits for nobody, and item i has i items before it.",
        ),
        (
            total + i * max(0.0, total - every),
            "That is one item after the other. The first stage is free again as soon as it has passed an item on.",
        ),
        (
            total + i * (times[0] - every) if times[0] > every else math.nan,
            "You looked at the first stage only. The queue builds up in front of the slowest one.",
        ),
    ]
    if every < longest:
        known += [
            (total + i * every, "An item's clock starts when it arrives. Do not count the time before that."),
            (total, "That is an item alone. Items come faster than the slowest stage can take them, so they queue."),
            (
                total + i * longest,
                "That is when item i leaves. Its latency is counted from when it arrived, at i * every.",
            ),
            (
                total + longest - every if i > 1 else math.nan,
                "That is the wait behind one item. The queue grows with each item: the wait of item i is i times that.",
            ),
        ]
    else:
        known.append((total + i * every, "That is when item i leaves. Its latency is counted from when it arrived."))
        known.append((late, "No item leaves before its own work is done. If items come slowly, none of them waits."))
        known.append((total + i * longest, "Items come slowly enough, so none of them waits for another."))
    return known


EXERCISE = Exercise(
    name="latency_and_throughput",
    lesson="11b_batches_and_streams",
    title="Latency and throughput",
    answers=tuple(_PARTS),
    parts={_ALONE: 1, _SPEEDUP: 1, _STREAM: 2},
    visible=[
        _case("latency", [3]),
        _case("latency", [2, 5, 1]),
        _case("rate", [4]),
        _case("rate", [2, 5, 1]),
        _case("rate", [0.5, 0.25]),
        _case("speed_up", [2, 5, 1], 1),
        _case("speed_up", [2, 5, 1], 6),
        _case("speed_up", [3, 3, 3, 3], 4),
        _case("speed_up", [7], 5),
        _case("stream_latency", [2, 5, 1], 0, 4),
        _case("stream_latency", [4.5, 5, 1], 3, 4),
        _case("stream_latency", [2, 5, 1], 3, 7),
        _case("stream_latency", [2, 5, 1], 4, 0),
        _case("stream_latency", [6, 5], 2, 5.5),
        _case("stream_latency", [1, 2, 4], 7, 4),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
