"""Exercise of lesson 11b: the least batch that keeps the GPU busy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from random import Random
from typing import Any

from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.judging import close, read_number, read_whole
from pipelab.teaching.exercises.lesson_09.mistakes import the_only

_SHARE, _BATCH = "busy share", "least batch"
GPU = "gpu"
Stages = Sequence[Sequence[Any]]  # (resource, a, c)
Known = list[tuple[float, str]]


def _told(stages: Stages) -> str:
    return ", ".join(f"{resource} {a:g} + {c:g} b" for resource, a, c in stages)


def _share_case(stages: Stages, b: int) -> Case:
    given = [[list(stage) for stage in stages], b]
    return Case(_SHARE, {"_given": given, "_words": f"stages {_told(stages)}; b = {b}"})


def _batch_case(stages: Stages, item_bytes: int, buffers: int, limit: int) -> Case:
    words = f"stages {_told(stages)}; item_bytes = {item_bytes}, buffers = {buffers}, limit = {limit}"
    return Case(_BATCH, {"_given": [[list(stage) for stage in stages], item_bytes, buffers, limit], "_words": words})


def _stages(random: Random) -> Stages:
    """A GPU between stages on one or two other resources, all numbers exact in binary."""
    launch, each = random.randint(0, 24) / 4, random.randint(2, 16) / 8
    others: list[tuple[str, float, float]] = []
    for name in random.choice((["cpu", "cpu"], ["cpu", "disk"], ["cpu", "cpu", "disk"], ["cpu"])):
        slope = each * random.choice((0.25, 0.25, 0.5, 0.5, 1, 1.25))
        others.append((name, random.randint(0, 40) / 4, slope))
    return [others[0], (GPU, launch, each), *others[1:]]


def _drawn(random: Random) -> list[Case]:
    cases = []
    for _ in range(6):
        cases.append(_share_case(_stages(random), random.randint(1, 64)))
    for _ in range(12):
        size, buffers = random.randint(1, 12) * 100, random.randint(1, 3)
        cases.append(_batch_case(_stages(random), size, buffers, size * buffers * random.randint(1, 30) + size // 2))
    return cases


def _ask(call: Call, case: Case) -> Any:
    stages, *more = case["_given"]
    stages = [tuple(stage) for stage in stages]
    if case.part == _SHARE:
        return call("gpu_share", stages, *more)
    return call("least_batch", stages, *more, _none=True)


def _loads(stages: Stages) -> dict[str, tuple[Fraction, Fraction]]:
    """a and c of each resource: those of its stages, added up."""
    found: dict[str, tuple[Fraction, Fraction]] = {}
    for resource, a, c in stages:
        x, y = found.get(resource, (Fraction(0), Fraction(0)))
        found[resource] = x + Fraction(a), y + Fraction(c)
    return found


@reserved
def share(stages: Stages, b: int) -> float:
    """The part of a long run in which the GPU works."""
    times = {resource: a + c * b for resource, (a, c) in _loads(stages).items()}
    return float(times[GPU] / max(times.values()))


@reserved
def largest(item_bytes: int, buffers: int, limit: int) -> int:
    """The largest batch that fits."""
    return limit // (item_bytes * buffers)


@reserved
def least(stages: Stages, item_bytes: int, buffers: int, limit: int) -> int | None:
    """The least batch at which no other resource takes longer than the GPU, if it fits."""
    loads = _loads(stages)
    launch, each = loads.pop(GPU)
    low, high = 1, largest(item_bytes, buffers, limit)
    for a, c in loads.values():
        if each > c:
            low = max(low, math.ceil((a - launch) / (each - c)))
        elif each < c:
            high = min(high, math.floor((launch - a) / (c - each)))
        elif a > launch:
            return None
    return low if low <= high else None


def _judge(case: Case, data: Any) -> Finding | None:
    return _judge_share(case, data) if case.part == _SHARE else _judge_batch(case, data)


def _judge_share(case: Case, data: Any) -> Finding | None:
    stages, b = case["_given"]
    given, wanted = read_number(data, f"{case.words}: gpu_share"), share(stages, b)
    if close(given, wanted):
        return None
    why = the_only((close(given, value), why) for value, why in _share_mistakes(stages, b))
    return Finding(f"{case.words}: gpu_share returned {given:.6g} instead of {wanted:.6g}. {why}".rstrip())


def _share_mistakes(stages: Stages, b: int) -> Known:
    times = {resource: float(a + c * b) for resource, (a, c) in _loads(stages).items()}
    alone = [(resource, a + c * b) for resource, a, c in stages]
    gpu, longest = times[GPU], max(times.values())
    others = sum(times.values()) - gpu
    return [
        (
            gpu / max(time for _, time in alone),
            "Stages on the same resource were looked at one by one. Their times add up: it does one job at a time.",
        ),
        (gpu / sum(times.values()), "That is one batch after the other. The resources work at the same time."),
        (
            gpu / others if len(times) > 2 else math.nan,
            "The times of the other resources do not add up. The slowest decides.",
        ),
        (longest / gpu, "That is above 1. Divide the GPU's time by that of the slowest resource."),
        (
            gpu / max(time for name, time in times.items() if name != GPU) if others else math.nan,
            "The GPU may be the slowest itself. Then it is busy all the time, and the share is 1.",
        ),
        (
            float(_loads(stages)[GPU][1] * b) / longest,
            "The launch is missing: the GPU is taken for a + c b with each batch.",
        ),
        (1 - gpu / longest, "That is the part in which the GPU is idle."),
    ]


def _judge_batch(case: Case, data: Any) -> Finding | None:
    given, wanted = case["_given"], least(*case["_given"])
    answer = None if data is None else read_whole(data, f"{case.words}: least_batch")
    if answer == wanted:
        return None
    start = f"{case.words}: least_batch returned {answer} instead of {wanted}. "
    if answer is not None and answer < 1:
        return Finding(f"{start}A batch has at least 1 item.")
    return Finding(f"{start}{_why(answer, wanted, *given)}")


def _why(answer: int | None, wanted: int | None, stages: Stages, item_bytes: int, buffers: int, limit: int) -> str:
    """Where the answer does not hold."""
    loads = _loads(stages)

    if answer is None:
        assert wanted is not None
        fits = _needs(wanted, item_bytes, buffers, limit)
        return f"At b = {wanted} no resource takes longer than the GPU, and {fits}"
    if answer * item_bytes * buffers > limit:
        return f"That does not fit: {_needs(answer, item_bytes, buffers, limit)}"
    times = {resource: float(a + c * answer) for resource, (a, c) in loads.items()}
    slower = next((name for name, time in times.items() if time > times[GPU]), "")
    if not slower:
        return f"At b = {answer - 1} no resource takes longer than the GPU either. As long is enough."
    apart = [f"{a + c * answer:g}" for resource, a, c in stages if resource == slower]
    sums = f" ({' + '.join(apart)})" if len(apart) > 1 else ""
    told = f"At b = {answer}, {slower} takes {times[slower]:g}{sums} and the GPU {times[GPU]:g}. So the GPU waits."
    if loads[slower][1] > loads[GPU][1]:
        return f"{told} Each further item adds more to {slower} than to the GPU, so a larger batch makes it worse."
    return told if wanted is not None else f"{told} No batch that fits changes that."


def _needs(b: int, item_bytes: int, buffers: int, limit: int) -> str:
    each = f"{buffers} batches" if buffers > 1 else "1 batch"
    return f"{each} of {b} items take {buffers * b * item_bytes} of {limit} bytes."


_SHARED = [("cpu", 2, 0.5), (GPU, 4, 1), ("cpu", 6, 0.25)]
_STEEP = [("cpu", 1, 1.5), (GPU, 9, 1)]

EXERCISE = Exercise(
    name="least_batch",
    lesson="11b_batches_and_streams",
    title="The least batch that keeps the GPU busy",
    answers=("gpu_share", "least_batch"),
    parts={_SHARE: 1, _BATCH: 3},
    visible=[
        _share_case([("cpu", 6, 0.5), (GPU, 2, 1)], 2),
        _share_case([("cpu", 6, 0.5), (GPU, 2, 1)], 20),
        _share_case(_SHARED, 4),
        _share_case([("cpu", 8, 0.5), (GPU, 2, 1), ("disk", 9, 0.5)], 4),
        _batch_case([("cpu", 1, 0.5), (GPU, 2, 1)], 100, 1, 1000),
        _batch_case([("cpu", 7, 0.5), (GPU, 2, 1)], 100, 2, 4000),
        _batch_case([("cpu", 7, 0.5), (GPU, 2.25, 1)], 100, 2, 4000),
        _batch_case(_SHARED, 100, 2, 10000),
        _batch_case(_SHARED, 100, 2, 3000),
        _batch_case(_SHARED, 100, 2, 3200),
        _batch_case([("cpu", 7, 0.25), (GPU, 2, 1), ("disk", 9, 0.5)], 100, 3, 9000),
        _batch_case(_STEEP, 100, 1, 10000),
        _batch_case([("cpu", 3, 1), (GPU, 2, 1)], 100, 1, 10000),
        _batch_case([("cpu", 2, 1), (GPU, 2, 1)], 100, 1, 10000),
        _batch_case([*_STEEP, ("disk", 12, 0.875)], 100, 1, 10000),
        _batch_case([*_STEEP, ("disk", 10, 0.5)], 100, 1, 10000),
        _batch_case([("cpu", 3, 1.5), (GPU, 2, 1)], 100, 1, 10000),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
