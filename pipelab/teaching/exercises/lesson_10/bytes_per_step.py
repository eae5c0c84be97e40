"""Exercise of lesson 10: what each kind of parallelism sends in a step."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.judging import close, read_number
from pipelab.teaching.exercises.lesson_09.mistakes import the_only

_TENSOR, _PIPELINE, _DATA, _SHARDED = "tensor parallel", "pipeline", "data parallel", "ZeRO-3"
_CALLS = {_TENSOR: "tensor_bytes", _PIPELINE: "pipeline_bytes", _DATA: "data_bytes", _SHARDED: "zero3_bytes"}
Facts = Mapping[str, int]


def _case(part: str, model: Facts, shape: Facts, device: int = 0) -> Case:
    told = {name: shape[name] for name in ("dp", "pp", "tp", "m")}
    told |= {"v": shape["v"], "device": device} if part == _PIPELINE else {}
    words = ", ".join(f"{name} = {value}" for name, value in told.items())
    return Case(part, {"_model": dict(model), "_shape": dict(shape), "_device": device, "_words": words})


def _facts(layers: int, width: int, tokens: int, layer_parameters: int, number: int) -> Facts:
    return {
        "layers": layers,
        "width": width,
        "tokens": tokens,
        "layer_parameters": layer_parameters,
        "number_bytes": number,
    }


def _shape(dp: int, pp: int, tp: int, m: int, v: int = 1, size: int = 1) -> Facts:
    """``size``: sequences of a micro-batch."""
    return {"dp": dp, "pp": pp, "tp": tp, "m": m, "v": v, "batch": dp * m * size}


def _some(random: Random, part: str) -> Case:
    pp, v = random.choice((1, 2, 2, 3, 4)), random.randint(1, 3)
    width = 12 * random.randint(1, 8)
    model = _facts(pp * v * random.randint(1, 3), width, random.randint(4, 64), 12 * width**2, random.choice((2, 4)))
    shape = _shape(
        random.choice((1, 2, 3, 4)), pp, random.choice((1, 2, 3, 4)), random.randint(2, 9), v, random.randint(1, 5)
    )
    return _case(part, model, shape, random.randrange(pp))


def _drawn(random: Random) -> list[Case]:
    return [_some(random, part) for part in _CALLS for _ in range(6)]


def _ask(call: Call, case: Case) -> Any:
    device = [case["_device"]] if case.part == _PIPELINE else []
    return call(_CALLS[case.part], case["_model"], case["_shape"], *device)


def _activation(model: Facts, shape: Facts) -> float:
    """Bytes between two layers, for one micro-batch."""
    size = shape["batch"] / shape["dp"] / shape["m"]
    return size * model["tokens"] * model["width"] * model["number_bytes"]


def _weights(model: Facts, shape: Facts) -> float:
    """Bytes of the weights on a device, and of its gradients."""
    layers = model["layers"] / shape["pp"]
    return layers * model["layer_parameters"] / shape["tp"] * model["number_bytes"]


def _sends(shape: Facts, device: int) -> tuple[int, int]:
    """How many activations and gradients a device sends for one micro-batch."""
    pp, v = shape["pp"], shape["v"]
    if pp == 1:
        return 0, 0
    return v - (device == pp - 1), v - (device == 0)


@reserved
def sent(part: str, model: Facts, shape: Facts, device: int) -> float:
    """Bytes that a device sends in one step."""
    dp, pp, tp, m = (shape[name] for name in ("dp", "pp", "tp", "m"))
    if part == _TENSOR:
        return 4 * model["layers"] / pp * m * 2 * (tp - 1) / tp * _activation(model, shape)
    if part == _PIPELINE:
        return m * sum(_sends(shape, device)) * _activation(model, shape)
    times = 2 if part == _DATA else 3 * m
    return times * (dp - 1) / dp * _weights(model, shape)


def _judge(case: Case, data: Any) -> Finding | None:
    model, shape, device = case["_model"], case["_shape"], case["_device"]
    given = read_number(data, f"{case.words}: {_CALLS[case.part]}")
    wanted = sent(case.part, model, shape, device)
    if close(given, wanted):
        return None
    start = f"{case.words}: {_CALLS[case.part]} returned {given:.10g} bytes instead of {wanted:.10g}. "
    alone = {_TENSOR: "tp", _PIPELINE: "pp", _DATA: "dp", _SHARDED: "dp"}[case.part]
    if shape[alone] == 1:
        return Finding(f"{start}With {alone} = 1 there is nobody to send to.")
    of_part = {_TENSOR: _of_tensor, _PIPELINE: _of_pipeline, _DATA: _of_data, _SHARDED: _of_sharded}[case.part]
    known = [*of_part(shape, device, wanted), *_of_all(case.part, model, shape, wanted)]
    return Finding(f"{start}{the_only((close(given, value), why) for value, why in known)}".rstrip())


Known = list[tuple[float, str]]


def _ring(share: float, size: int, wanted: float) -> Known:
    """Mistakes about the ring, where ``wanted`` holds ``share`` (n - 1)/n of a tensor, n = ``size``."""
    whole = wanted * size / (size - 1)
    return [
        (whole, "Each device was counted with all n pieces. It never sends a piece to itself: n - 1 of n go out."),
        (wanted * size, "A piece is an n-th of the tensor. You counted n - 1 whole tensors."),
        (whole / share, "That is the tensor itself, once. A ring sends it in pieces, and more than once."),
    ]


def _of_tensor(shape: Facts, device: int, wanted: float) -> Known:
    tp = shape["tp"]
    return [
        *_ring(2, tp, wanted),
        (
            wanted / 2,
            "That is half. Either the backward is missing, or the second half of the ring. The backward has "
            "two all-reduces a layer too. And a ring first adds up the pieces, and then hands out the sums.",
        ),
        (wanted / 4, "That is a quarter. A layer has two all-reduces forward and two backward."),
        (wanted / tp, "The activation was divided by tp. Each rank has a sum of full width to add to those of others."),
    ]


def _of_pipeline(shape: Facts, device: int, wanted: float) -> Known:
    pp, v = shape["pp"], shape["v"]
    each = wanted / sum(_sends(shape, device))
    straight = (device < pp - 1) + (device > 0)
    known = [
        (
            each * 2 * v,
            "A device at the end of the line was counted as one in the middle. Behind the last stage, and before the "
            "first, nothing is sent.",
        ),
        (wanted / shape["tp"], "The activation was divided by tp. Here each rank sends all of it."),
    ]
    if v == 1:
        half = "That is half. For each activation that a stage sends on, it later gets a gradient, and sends one back."
        return [*known, (wanted / 2, half)]
    return [
        *known,
        (each * straight, f"That is for one stage on the device. There are v = {v}, and each of them sends."),
        (
            each * v * straight,
            "The way round is missing: behind the last device the next stage is on device 0 again.",
        ),
    ]


def _of_data(shape: Facts, device: int, wanted: float) -> Known:
    m = shape["m"]
    return [
        *_ring(2, shape["dp"], wanted),
        (wanted / 2, "A ring goes round twice: first it adds up the pieces, and then it hands out the sums."),
        (
            wanted * m,
            "Gradients are first added up on the device. They are reduced once, for all micro-batches.",
        ),
        (wanted * 3 / 2, "That is the count of ZeRO-3, for one micro-batch."),
    ]


def _of_sharded(shape: Facts, device: int, wanted: float) -> Known:
    dp, m = shape["dp"], shape["m"]
    each = wanted / (3 * m)
    return [
        *_ring(3 * m, dp, wanted),
        (each * 3, "That is one micro-batch. The weights are given up after use, and gathered again for the next one."),
        (each * 2 * m, "One of the three is missing: weights for the forward, weights for the backward, gradients."),
        (each * 2, "That is an all-reduce once a step, as in plain data parallelism."),
        (
            each * m,
            "That is one of three messages. Weights come for the forward and for the backward, and gradients leave.",
        ),
        (
            each * (2 * m + 1),
            "The gradients were reduced once a step. Then a device would need room for all of them. "
            "Here they leave it after each micro-batch.",
        ),
        (
            each * (m + 2),
            "The weights for one of the two passes were gathered once a step. They are given up after "
            "each pass of each micro-batch.",
        ),
        (
            each * 4 * m,
            "Two half-rounds were counted for the gradients. Each rank keeps its own part of the sums, so "
            "nothing is handed out.",
        ),
    ]


def _of_all(part: str, model: Facts, shape: Facts, wanted: float) -> Known:
    """What can be forgotten in each of them."""
    dp, pp, tp, m, number = *(shape[name] for name in ("dp", "pp", "tp", "m")), model["number_bytes"]
    known = [(wanted / number, f"These are numbers. Each has {number} bytes.")]
    if part != _PIPELINE:
        known.append((wanted * pp, f"All layers were counted. A device has one of pp = {pp} parts of them."))
    if part in (_TENSOR, _PIPELINE):
        known += [
            (wanted / m, f"That is for one micro-batch. In a step there are m = {m}."),
            (wanted * m, "Each micro-batch was counted with all sequences of the replica."),
            (wanted * dp, f"The batch was not shared out. Each of the dp = {dp} replicas has a part of it."),
            (wanted * dp * m, "Each micro-batch was counted with the whole batch."),
        ]
    else:
        known.append((wanted * tp, f"A device has one of tp = {tp} parts of each layer. You counted whole layers."))
        known.append((wanted * pp * tp, "That is the whole model. A device has some layers, and a part of each."))
    return known


_SMALL = _facts(6, 10, 7, 1300, 8)
_DEEP = _facts(24, 16, 5, 3072, 2)

EXERCISE = Exercise(
    name="bytes_per_step",
    lesson="10_parallelism",
    title="Bytes per step",
    answers=("tensor_bytes", "pipeline_bytes", "data_bytes", "zero3_bytes"),
    parts={_TENSOR: 1, _PIPELINE: 2, _DATA: 1, _SHARDED: 1},
    visible=[
        _case(_TENSOR, _SMALL, _shape(5, 3, 7, 11, size=2)),
        _case(_TENSOR, _DEEP, _shape(1, 4, 2, 3)),
        _case(_TENSOR, _SMALL, _shape(2, 3, 1, 4)),
        _case(_PIPELINE, _SMALL, _shape(5, 3, 7, 11, size=2), device=1),
        _case(_PIPELINE, _SMALL, _shape(5, 3, 7, 11, size=2), device=0),
        _case(_PIPELINE, _DEEP, _shape(5, 3, 2, 11, v=4), device=2),
        _case(_PIPELINE, _DEEP, _shape(5, 3, 7, 11, v=2), device=0),
        _case(_PIPELINE, _DEEP, _shape(2, 1, 2, 4, v=2)),
        _case(_DATA, _SMALL, _shape(5, 3, 7, 11)),
        _case(_DATA, _DEEP, _shape(2, 4, 1, 3)),
        _case(_DATA, _SMALL, _shape(1, 2, 2, 4)),
        _case(_SHARDED, _SMALL, _shape(5, 3, 7, 11)),
        _case(_SHARDED, _DEEP, _shape(2, 1, 2, 5)),
        _case(_SHARDED, _SMALL, _shape(1, 2, 2, 4)),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
