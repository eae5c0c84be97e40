"""Exercise of lesson 10: the best shape for a cluster, under a small cost model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any

from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.judging import close, numbers, read_number, read_whole
from pipelab.teaching.exercises.lesson_09.mistakes import the_only

_MEMORY, _TIME, _BEST = "memory", "time", "best shape"
_NEAR = 1e-9
Facts = Mapping[str, float]
Shape = tuple[int, int, int, int]
"""dp, pp, tp, m."""


def _case(part: str, model: Facts, cluster: Facts, batch: int, shape: Sequence[int] = ()) -> Case:
    told = [f"{name} = {value}" for name, value in zip(("dp", "pp", "tp", "m"), shape, strict=False)]
    told.append(f"batch = {batch}")
    if part == _TIME:
        told.append(f"{cluster['node']:g} devices a node")
    if part == _BEST:
        told = [
            f"{cluster['devices']:g} devices, {cluster['node']:g} a node, of {cluster['memory'] / 1e9:g} GB",
            f"{model['layers']:g} layers of {model['layer_parameters'] / 1e6:g} million",
            *told,
        ]
    given = {"_model": dict(model), "_cluster": dict(cluster), "_batch": batch, "_shape": list(shape)}
    return Case(part, {**given, "_words": ", ".join(told)})


def _model(layers: int, millions: float, tokens: int = 2048, fixed: float = 5e-4) -> Facts:
    """A transformer with layers of ``millions`` of parameters, on devices of 150 teraflops."""
    parameters = 1e6 * millions
    width = round((parameters / 12) ** 0.5)
    return {
        "layers": layers,
        "layer_parameters": parameters,
        "layer_activations": 34.0 * tokens * width,
        "message_bytes": 2.0 * tokens * width,
        "layer_seconds": 6 * parameters * tokens / 150e12,
        "fixed_seconds": fixed,
    }


def _cluster(devices: int, node: int, gigabytes: float, inside: float = 300, between: float = 25) -> Facts:
    """Links in GB/s."""
    return {
        "devices": devices,
        "node": node,
        "memory": 1e9 * gigabytes,
        "inside": 1e9 * inside,
        "between": 1e9 * between,
    }


def _drawn(random: Random) -> list[Case]:
    cases = []
    for part in (_MEMORY, _TIME, _BEST) * 5:
        model = _model(random.choice((12, 24, 32, 48)), random.choice((50, 100, 200, 400, 800)))
        node = random.choice((2, 4, 8))
        cluster = _cluster(
            node * random.choice((1, 2, 4)),
            node,
            random.choice((16, 24, 40, 80)),
            random.choice((100, 300, 600)),
            random.choice((3, 12, 25, 50)),
        )
        dp, pp, tp, m, size = (random.choice((1, 2, 3, 4)) for _ in range(5))
        if part == _BEST:
            cases.append(_case(part, model, cluster, random.choice((16, 32, 48, 64))))
        else:
            cases.append(_case(part, model, cluster, dp * m * size, (dp, pp, tp, m)))
    return cases


def _ask(call: Call, case: Case) -> Any:
    model, cluster, batch, shape = (case[name] for name in ("_model", "_cluster", "_batch", "_shape"))
    if case.part == _MEMORY:
        return call("device_memory", model, batch, tuple(shape))
    if case.part == _TIME:
        return call("step_time", model, cluster, batch, tuple(shape))
    return call("best_shape", model, cluster, batch, _none=True)


def _held(model: Facts, batch: int, shape: Sequence[int]) -> tuple[float, float]:
    """Bytes of a device: for weights with all that belongs to them, and for the activations of one micro-batch."""
    dp, pp, tp, m = shape
    part = model["layers"] / (pp * tp)
    return 16 * model["layer_parameters"] * part, batch / (dp * m) * model["layer_activations"] * part


@reserved
def memory(model: Facts, batch: int, shape: Sequence[int]) -> float:
    """Bytes on the first device of a pipeline."""
    weights, activations = _held(model, batch, shape)
    return weights + min(shape[1], shape[3]) * activations


def _link(cluster: Facts, span: int) -> float:
    return cluster["inside"] if span <= cluster["node"] else cluster["between"]


def _slot(model: Facts, cluster: Facts, batch: int, shape: Sequence[int]) -> dict[str, float]:
    """Seconds of one micro-batch in one stage, by what takes them."""
    dp, pp, tp, m = shape
    size, layers = batch / (dp * m), model["layers"] / pp
    return {
        "fixed": layers * model["fixed_seconds"],
        "work": layers * size * model["layer_seconds"] / tp,
        "tensor": layers * 8 * (tp - 1) / tp * size * model["message_bytes"] / _link(cluster, tp),
        "messages": 2 * size * model["message_bytes"] / _link(cluster, pp * tp) if pp > 1 else 0.0,
    }


def _reduction(model: Facts, cluster: Facts, shape: Sequence[int]) -> float:
    """Seconds in which the gradients of a device are reduced."""
    dp, pp, tp, _ = shape
    gradients = 2 * model["layer_parameters"] * model["layers"] / (pp * tp)
    return 2 * (dp - 1) / dp * gradients / _link(cluster, dp * pp * tp)


@reserved
def pieces(model: Facts, cluster: Facts, batch: int, shape: Sequence[int]) -> dict[str, float]:
    """Seconds of a step, by what takes them."""
    _, pp, _, m = shape
    slot = _slot(model, cluster, batch, shape)
    bubble = {"bubble": (pp - 1) * sum(slot.values())}
    return {name: m * value for name, value in slot.items()} | bubble | {"gradients": _reduction(model, cluster, shape)}


def time(model: Facts, cluster: Facts, batch: int, shape: Sequence[int]) -> float:
    """Seconds of a step."""
    return sum(pieces(model, cluster, batch, shape).values())


def allowed(model: Facts, cluster: Facts, batch: int) -> Iterator[Shape]:
    """All shapes for all devices of a cluster, whether they fit or not."""
    devices = int(cluster["devices"])
    for pp in range(1, devices + 1):
        for tp in range(1, devices // pp + 1):
            if devices % (pp * tp) == 0 and model["layers"] % pp == 0:
                dp = devices // (pp * tp)
                yield from ((dp, pp, tp, m) for m in range(1, batch + 1) if batch % (dp * m) == 0)


@reserved
def best(model: Facts, cluster: Facts, batch: int) -> Shape | None:
    """The fastest shape that fits, None if none does."""
    fitting = [s for s in allowed(model, cluster, batch) if memory(model, batch, s) <= cluster["memory"]]
    return min(fitting, key=lambda shape: time(model, cluster, batch, shape), default=None)


def _judge(case: Case, data: Any) -> Finding | None:
    return {_MEMORY: _judge_memory, _TIME: _judge_time, _BEST: _judge_best}[case.part](case, data)


def _judge_memory(case: Case, data: Any) -> Finding | None:
    model, batch, shape = case["_model"], case["_batch"], case["_shape"]
    given, wanted = read_number(data, f"{case.words}: device_memory"), memory(model, batch, shape)
    if close(given, wanted):
        return None
    (dp, pp, tp, m), (weights, each) = shape, _held(model, batch, shape)
    held = min(pp, m) * each
    known = [
        (weights, "The activations are missing."),
        (held, "Weights, gradients and the optimizer's state are missing."),
        (weights / 8 + held, "Only 2 bytes were counted for a parameter. Gradients and optimizer need room too."),
        (weights + m * each, "That holds all m micro-batches. 1F1B has at most pp of them under way."),
        (weights + pp * each, "That holds pp micro-batches, but there are fewer."),
        (weights + each, "Only one micro-batch was counted. The first device has several under way."),
        (weights + dp * held, "The batch was not shared out among the replicas."),
        (weights + m * held, "Each micro-batch was counted with all sequences of the replica."),
        (weights + tp * held, "The activations of a layer are split over tp too."),
        (tp * weights + held, "The weights of a layer are split over tp too."),
        (tp * (weights + held), "A rank has a part 1/tp of each layer. You counted whole layers."),
        (pp * (weights + held), "A device has one stage. You counted all layers."),
    ]
    why = the_only((close(given, value), why) for value, why in known if not close(value, wanted))
    return Finding(
        f"{case.words}: device_memory returned {given / 1e9:.4g} GB instead of {wanted / 1e9:.4g}. {why}".rstrip()
    )


def _judge_time(case: Case, data: Any) -> Finding | None:
    facts = case["_model"], case["_cluster"], case["_batch"], case["_shape"]
    given, wanted = read_number(data, f"{case.words}: step_time"), time(*facts)
    if close(given, wanted):
        return None
    known = _time_mistakes(*facts)
    why = the_only((close(given, value), why) for value, why in known if not close(value, wanted))
    return Finding(f"{case.words}: step_time returned {given:.5g} s instead of {wanted:.5g}. {why}".rstrip())


def _time_mistakes(model: Facts, cluster: Facts, batch: int, shape: Sequence[int]) -> list[tuple[float, str]]:
    """What each of the usual mistakes would return, and why it is one."""
    dp, pp, tp, m = shape
    slot, last = _slot(model, cluster, batch, shape), _reduction(model, cluster, shape)
    fast, slow = ({**cluster, "node": node} for node in (cluster["devices"] * dp * pp * tp, 0))
    each, turns = sum(slot.values()), m + pp - 1

    def but(**times: float) -> float:
        """The step with pieces of a slot changed by a factor."""
        return turns * sum(value * times.get(name, 1.0) for name, value in slot.items()) + last

    near = slot["messages"] * _link(cluster, pp * tp) / _link(cluster, pp)
    return [
        (m * each + last, "The bubble is missing. The last micro-batch passes pp - 1 more stages."),
        ((m + pp) * each + last, "One slot too many: the pipeline is filled after pp - 1 of them."),
        (turns * each, "The reduction of the gradients is missing."),
        (turns * each + m * last, "Gradients are reduced once a step, and not once a micro-batch."),
        (turns * (each + last), "Gradients are reduced once a step, and not in each slot."),
        (turns * each + last / 2, "A ring all-reduce sends each piece twice: once to add up, and once to hand out."),
        (turns * each + last * dp / (dp - 1 or 1) / 2, "Gradients go round a ring in pieces, 2 (dp - 1) of dp."),
        (turns * each + last * dp, "A piece is a dp-th of the gradients."),
        (turns * each + 8 * last, "A gradient has 2 bytes for each parameter. The 16 bytes stay on the device."),
        (
            turns * each + _reduction(model, fast, shape),
            "Gradients were reduced over the links in a node. The ranks of a dp group are pp · tp apart.",
        ),
        (but(tensor=0), "The all-reduces of tensor parallelism are missing."),
        (but(tensor=0.5), "Half of the all-reduces are missing. A layer has two forward and two backward, 4 together."),
        (but(tensor=tp), "A piece in the ring is a tp-th of the tensor."),
        (but(tensor=tp / (tp - 1 or 1)), "A rank sends tp - 1 pieces of tp, each twice. It keeps its own."),
        (but(messages=0), "The messages between stages are missing."),
        (but(messages=0.5), "For each activation that goes on, a gradient comes back."),
        (
            turns * (each - slot["messages"] + near) + last,
            "Messages went over the links in a node. But neighbours are tp ranks apart, and a pipeline spans pp · tp.",
        ),
        (but(work=tp), "The work on a layer is shared by its tp ranks."),
        (but(fixed=0), "The fixed time is missing: each layer takes it for each micro-batch."),
        (but(fixed=1 / tp), "The fixed time is not shared. Each of the tp ranks has it."),
        (
            turns * sum(_slot(model, slow, batch, shape).values()) + _reduction(model, slow, shape),
            "All links were taken for those between nodes.",
        ),
    ]


def _judge_best(case: Case, data: Any) -> Finding | None:
    facts = case["_model"], case["_cluster"], case["_batch"]
    model, cluster, batch = facts
    wanted = best(*facts)
    if data is None:
        return None if wanted is None else Finding(f"{case.words}: best_shape returned None, but some shapes fit.")
    given = [read_whole(n, f"{case.words}: a size") for n in numbers(data, f"{case.words}: best_shape", 4)]
    start = f"{case.words}: best_shape returned {tuple(given)}. "
    illegal = _illegal(given, *facts)
    if illegal:
        return Finding(start + illegal)
    needs = memory(model, batch, given)
    if needs > cluster["memory"] * (1 + _NEAR):
        nothing = " No shape fits here: return None." if wanted is None else ""
        return Finding(f"{start}It needs {needs / 1e9:.4g} GB of {cluster['memory'] / 1e9:g}.{nothing}")
    assert wanted is not None
    mine, theirs = pieces(*facts, given), pieces(*facts, wanted)
    if sum(mine.values()) <= sum(theirs.values()) * (1 + _NEAR):
        return None
    worst = max(mine, key=lambda name: mine[name] - theirs[name])
    return Finding(
        f"{start}It fits, and takes {sum(mine.values()):.4g} s. Another one that fits takes "
        f"{sum(theirs.values()):.4g} s. Yours loses most {_LOSES[worst]}: {mine[worst]:.3g} s there, and the other one "
        f"{theirs[worst]:.3g} s."
    )


_LOSES = {
    "fixed": "by fixed times, with too many micro-batches",
    "work": "by the work itself",
    "tensor": "by the all-reduces of tensor parallelism",
    "messages": "by messages between stages",
    "bubble": "by the bubble",
    "gradients": "by the reduction of the gradients",
}


def _illegal(shape: Sequence[int], model: Facts, cluster: Facts, batch: int) -> str:
    dp, pp, tp, m = shape
    if min(shape) < 1:
        return "All four are at least 1."
    if dp * pp * tp != cluster["devices"]:
        return f"These are {dp * pp * tp} devices, and there are {cluster['devices']:g}. Use all of them."
    if model["layers"] % pp:
        return f"pp = {pp} does not divide {model['layers']:g} layers."
    if batch % (dp * m):
        return f"dp · m = {dp * m} does not divide the batch of {batch}."
    return ""


_MEDIUM, _LARGE = _model(24, 200), _model(48, 800)

EXERCISE = Exercise(
    name="choose_shape",
    lesson="10b_inside_layers",
    title="Choose a shape",
    answers=("device_memory", "step_time", "best_shape"),
    parts={_MEMORY: 1, _TIME: 2, _BEST: 2},
    visible=[
        _case(_MEMORY, _MEDIUM, _cluster(60, 16, 80), 5 * 7 * 3, (5, 3, 4, 7)),
        _case(_MEMORY, _MEDIUM, _cluster(24, 8, 80), 45, (3, 8, 1, 5)),
        _case(_MEMORY, _LARGE, _cluster(4, 4, 80), 8, (1, 1, 4, 2)),
        _case(_TIME, _MEDIUM, _cluster(60, 16, 80), 5 * 7 * 3, (5, 3, 4, 7)),
        _case(_TIME, _MEDIUM, _cluster(24, 4, 80), 3 * 5 * 2, (3, 4, 2, 5)),
        _case(_TIME, _LARGE, _cluster(8, 4, 80), 8, (1, 1, 8, 2)),
        _case(_TIME, _LARGE, _cluster(4, 4, 80), 16, (4, 1, 1, 2)),
        _case(_BEST, _model(12, 50), _cluster(4, 4, 80), 16),
        _case(_BEST, _model(24, 100), _cluster(8, 2, 40), 16),
        _case(_BEST, _MEDIUM, _cluster(16, 4, 24), 32),
        _case(_BEST, _model(32, 400, fixed=0.02), _cluster(16, 4, 40, 300, 12), 64),
        _case(_BEST, _LARGE, _cluster(8, 8, 40), 32),
        _case(_BEST, _model(32, 100, fixed=0.003), _cluster(24, 4, 12, 30, 3), 96),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
    seconds=10.0,
)
