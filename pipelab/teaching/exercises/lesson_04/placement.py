"""Exercise of lesson 4: where do the chunks live?"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import as_lists, kind_of, read_whole


def _homes(part: str, sizes: Sequence[tuple[int, int, int]]) -> list[Case]:
    """Cases of (devices, chunks, layers of one chunk)."""
    return [
        Case(part, {"devices": p, "chunks": v, "layers": each * p * v} if part == "layers" else {"p": p, "v": v})
        for p, v, each in sizes
    ]


def _drawn_homes(random: Random) -> list[Case]:
    sizes = [(random.randint(2, 9), random.randint(2, 5), random.randint(2, 6)) for _ in range(4)]
    edges = [(12, 4, 1), (1, 3, 2), (random.randint(2, 6), 1, 3), (random.randint(2, 5), random.choice((6, 7)), 2)]
    return [case for part in ("stages", "layers") for case in _homes(part, [*sizes, *edges])]


def _ask_homes(call: Call, case: Case) -> Any:
    if case.part == "stages":
        p, v = case["p"], case["v"]
        return [call("device_of", stage, p, v) for stage in range(p * v)]
    p, v = case["devices"], case["chunks"]
    return [call("layers_on", r, case["layers"], p, v) for r in range(p)]


def _judge_homes(case: Case, data: Any) -> Finding | None:
    return _judge_stages(case, data) if case.part == "stages" else _judge_layers(case, data)


def _judge_stages(case: Case, data: Any) -> Finding | None:
    p, v = case["p"], case["v"]
    if not isinstance(data, list) or len(data) != p * v:
        raise Refused(f"{case.words}: there should be {p * v} answers, one for each stage")
    given = [read_whole(data[s], f"device_of({s}, {p}, {v})") for s in range(p * v)]
    wanted = [s % p for s in range(p * v)]
    if given == wanted:
        return None
    s = next(s for s in range(p * v) if given[s] != wanted[s])
    start = f"{case.words}: device_of({s}, {p}, {v}) returned {given[s]}, but stage {s} lives on device {wanted[s]}. "
    ladder = [s // v for s in range(p * v)]
    if given == ladder:
        why = (
            f"Yours are neighbouring chunks: device 0 holds stages {', '.join(map(str, range(v)))}. Then micro-batch 0 "
            f"passes whole devices on its way down, and device {p - 1} starts as late as without chunks. Nothing is "
            "gained."
        )
    elif given == [s // p for s in range(p * v)]:
        why = f"s // p counts how often the stages have gone round. That is the chunk, 0 to {v - 1}, not the device."
    elif given == [s % p if s // p % 2 == 0 else p - 1 - s % p for s in range(p * v)]:
        why = "Yours turns back at the last device, like a V. Round-robin starts again at device 0."
    elif given == [s % v for s in range(p * v)]:
        why = f"Yours begins again after v = {v} stages. It should begin again after p = {p}, the number of devices."
    elif given == [d + 1 for d in wanted]:
        why = "Devices are counted from 0."
    else:
        counts = [given.count(r) for r in range(p)]
        why = "" if counts == [v] * p else f"Each device holds v = {v} stages; yours hold {counts}. "
        why += "The next stage goes on the next device. After the last device comes device 0 again."
    return Finding(start + why)


def _judge_layers(case: Case, data: Any) -> Finding | None:
    p, v, layers = case["devices"], case["chunks"], case["layers"]
    words = f"p = {p}, v = {v}, {layers} layers"
    if not isinstance(data, list) or len(data) != p:
        raise Refused(f"{words}: there should be {p} answers, one for each device")
    given = [_whole_list(data[r], f"{words}: layers_on({r}, {layers}, {p}, {v})") for r in range(p)]
    each = layers // (p * v)
    wanted = [[(c * p + r) * each + k for c in range(v) for k in range(each)] for r in range(p)]
    if given == wanted:
        return None
    r = next(r for r in range(p) if given[r] != wanted[r])
    start = f"{words}: layers_on({r}, {layers}, {p}, {v}) returned {given[r]}, but the device holds {wanted[r]}. "
    strange = [k for row in given for k in row if not 0 <= k < layers]
    if given == [list(range(r * each * v, (r + 1) * each * v)) for r in range(p)]:
        why = "That is one run of neighbouring layers, as without chunks. A device here holds v runs, far apart."
    elif given == [list(range(r, layers, p)) for r in range(p)]:
        why = (
            f"Yours deals out single layers. A stage is a run of {each} neighbouring layers, and stages are dealt out."
        )
    elif given == [row[:each] for row in wanted]:
        why = f"That is the first chunk alone, but each device holds v = {v} chunks."
    elif given == [[(c * p + r) * each * v + k for c in range(v) for k in range(each * v)] for r in range(p)]:
        why = (
            f"Yours gives each stage layers/p = {each * v} layers, as many as a device holds in all. There are p v = "
            f"{p * v} stages, so a stage has layers/(p v) = {each}."
        )
    elif strange:
        why = f"Layers are numbered 0 to {layers - 1}: there is no layer {strange[0]}."
    elif [sorted(row) for row in given] == wanted:
        why = "The layers are right; give them in ascending order."
    else:
        why = f"Each of the p v = {p * v} stages has {each} layers, and device {r} holds stages " + ", ".join(
            str(c * p + r) for c in range(v)
        )
        why += "."
    return Finding(start + why)


def _whole_list(data: Any, what: str) -> list[int]:
    data = as_lists(data)
    if isinstance(data, dict) and isinstance(data.get("set"), list):
        data = sorted(data["set"])
    if not isinstance(data, list):
        raise Refused(f"{what} should return a list of layer numbers, it returned {kind_of(data)}")
    flat = [k for item in data for k in (item if isinstance(item, list) else [item])]  # chunk by chunk is as good
    return [read_whole(k, f"{what}: each layer") for k in flat]


EXERCISE = Exercise(
    name="placement",
    lesson="04_interleaved",
    title="Where do the chunks live?",
    answers=("device_of", "layers_on"),
    parts={"stages": 1, "layers": 1},
    visible=[
        case
        for part in ("stages", "layers")
        for case in _homes(part, [(3, 2, 2), (2, 3, 2), (2, 2, 3), (4, 2, 6), (4, 3, 4), (3, 1, 4)])
    ],
    drawn=_drawn_homes,
    ask=_ask_homes,
    judge=_judge_homes,
)
