"""All shapes of a cluster that fit, and the best few of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelab.errors import ConfigurationError, whole_number
from pipelab.quantities import format_bytes
from pipelab.tuning.shapes.cluster import Cluster
from pipelab.tuning.shapes.cost import step_time
from pipelab.tuning.shapes.facts import ModelFacts
from pipelab.tuning.shapes.memory import memory_of
from pipelab.tuning.shapes.neighbours import neighbours
from pipelab.tuning.shapes.result import ParallelismPlan, PlannedShape
from pipelab.tuning.shapes.shape import ORDERS, RECOMPUTE, SHARDING, Job, Shape

__all__ = ["plan_parallelism"]

Whole = int | Sequence[int] | None
Word = str | Sequence[str] | None


def plan_parallelism(
    model: ModelFacts,
    cluster: Cluster,
    batch: int,
    *,
    dp: Whole = None,
    pp: Whole = None,
    tp: Whole = None,
    microbatch: Whole = None,
    chunks: Whole = None,
    recompute: Word = None,
    sharding: Word = None,
    sequence_parallel: bool = True,
    overlap: bool = True,
    order: str = ORDERS[0],
    best: int = 5,
) -> ParallelismPlan:
    """The ``best`` shapes for training ``model`` on all of ``cluster`` with ``batch`` sequences a step.

    All (dp, pp, tp, b, v, recomputation, sharding) that fit are priced, by memory accounting and a cost model. What is
    given is fixed: one value, or several that are allowed. The rest is free. ``sequence_parallel``, ``overlap`` and
    ``order`` hold for all shapes; see ``Job``. Nothing is run.
    Raises ConfigurationError where a setting is none, where no shape can be, and where none fits.
    """
    for value, kind in ((model, ModelFacts), (cluster, Cluster)):
        if not isinstance(value, kind):
            hint = "ModelFacts.gpt(24, 2304, 24)" if kind is ModelFacts else "Cluster.of('a100', nodes=4)"
            raise ConfigurationError(f"plan_parallelism takes {kind.__name__}, got {value!r}; try {hint}")
    if order not in ORDERS:
        raise ConfigurationError(f"order must be {' or '.join(map(repr, ORDERS))}, got {order!r}")
    whole_number("best", "", best)
    job = Job(model, cluster, whole_number("batch", "", batch), sequence_parallel, overlap, order)
    fixed = {
        **{
            name: _numbers(name, value)
            for name, value in (("dp", dp), ("pp", pp), ("tp", tp), ("microbatch", microbatch), ("chunks", chunks))
        },
        "recompute": _words("recompute", recompute, RECOMPUTE),
        "sharding": _words("sharding", sharding, SHARDING),
    }
    considered = list(shapes(job, fixed))
    if not considered:
        raise ConfigurationError(_nothing(job, fixed))
    weighed = [(memory_of(job, shape), shape) for shape in considered]
    fitting = [(memory, shape) for memory, shape in weighed if memory.total <= cluster.allowed]
    if not fitting:
        least, shape = min(weighed, key=lambda pair: pair[0].total)
        raise ConfigurationError(
            f"none of {len(considered)} shapes fits into {format_bytes(cluster.allowed)} a device; {shape} needs "
            f"least, {format_bytes(least.total)}; take more devices, or fix less"
        )
    timed = sorted(
        (PlannedShape(job, shape, memory, step_time(job, shape)) for memory, shape in fitting),
        key=lambda one: (one.time.total, one.memory.total),
    )
    quickest: dict[tuple[int, int, int], PlannedShape] = {}
    for one in timed:
        quickest.setdefault((one.shape.dp, one.shape.pp, one.shape.tp), one)
    chosen = tuple(quickest.values())[:best]

    def free(shape: Shape) -> bool:
        return all(allowed is None or getattr(shape, name) in allowed for name, allowed in fixed.items())

    return ParallelismPlan(job, chosen, len(considered), len(fitting), neighbours(chosen[0], free))


def shapes(job: Job, fixed: Mapping[str, Sequence[Any] | None]) -> Iterator[Shape]:
    """Every shape that can be, memory left aside."""

    def among(name: str, candidates: Sequence[Any]) -> Sequence[Any]:
        allowed = fixed[name]
        return candidates if allowed is None else [one for one in candidates if one in allowed]

    devices = job.cluster.devices
    for tp in among("tp", _divisors(devices)):
        for pp in among("pp", [n for n in _divisors(devices // tp) if n <= job.model.layers]):
            dp = devices // tp // pp
            if job.batch % dp or not among("dp", [dp]):
                continue
            sharded = among("sharding", SHARDING)[: None if dp > 1 else 1]  # alike for one replica
            for b in among("microbatch", _divisors(job.batch // dp)):
                for v in among("chunks", _divisors(-(-job.model.layers // pp))):
                    one = Shape(dp, pp, tp, b, job.batch // dp // b, v)
                    if job.problem(one) is None:
                        for recompute in among("recompute", RECOMPUTE):
                            for sharding in sharded:
                                yield Shape(dp, pp, tp, b, one.microbatches, v, recompute, sharding)


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if number % n == 0]


def _numbers(name: str, given: Whole) -> tuple[int, ...] | None:
    if given is None:
        return None
    values = given if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    return tuple(whole_number(name, "", value) for value in values)


def _words(name: str, given: Word, known: Sequence[str]) -> tuple[str, ...] | None:
    if given is None:
        return None
    values = (given,) if isinstance(given, str) or not isinstance(given, Sequence) else tuple(given)
    for value in values:
        if value not in known:
            raise ConfigurationError(f"{name} must be {', '.join(map(repr, known))}, got {value!r}; or leave it out")
    return values


def _nothing(job: Job, fixed: Mapping[str, Sequence[Any] | None]) -> str:
    """Why no shape can be: the first setting without which one could."""
    given = {name: values for name, values in fixed.items() if values is not None}
    for name, values in given.items():
        able = sorted({getattr(shape, name) for shape in shapes(job, {**fixed, name: None})})
        if able:
            said = ", ".join(map(str, values))
            near = ", ".join(map(str, able[:8]))
            return f"no shape has {name} = {said}: with everything else as given, {name} can be {near}"
    model, devices = job.model, job.cluster.devices
    return (
        f"no dp * pp * tp = {devices} devices splits {model.layers} layers, {model.heads} heads and a batch of "
        f"{job.batch}; " + ("fix less" if given else f"try a batch of {-(-job.batch // devices) * devices}")
    )
