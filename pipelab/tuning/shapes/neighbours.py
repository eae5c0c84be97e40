"""The shapes one change away from the best one, and why each loses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction

from pipelab.quantities import format_bytes, format_time
from pipelab.tuning.shapes.memory import memory_of
from pipelab.tuning.shapes.result import PlannedShape
from pipelab.tuning.shapes.shape import RECOMPUTE, SHARDING, Job, Shape

__all__ = ["neighbours", "why"]

_NAMES = {
    "compute": "compute",
    "recompute": "recomputation",
    "tensor": "messages inside layers",
    "pipeline": "messages between stages",
    "data": "messages between replicas",
    "update": "the update",
}
_KINDS = {"tensor": "tp", "pipeline": "pp", "data": "dp"}


def neighbours(best: PlannedShape, free: Callable[[Shape], bool]) -> tuple[tuple[str, str], ...]:
    """(what changes, why it loses) of each neighbour that the caller left ``free``."""
    job, found = best.job, dict[str, str]()
    for shape in _around(job, best.shape):
        if free(shape):
            found[_change(best.shape, shape)] = why(job, best, shape)
    return tuple(found.items())


def why(job: Job, best: PlannedShape, shape: Shape) -> str:
    """Why ``shape`` is not better than ``best``."""
    problem = job.problem(shape)
    if problem is not None:
        return f"cannot be: {problem}"
    memory = memory_of(job, shape)
    if memory.total > job.cluster.allowed:
        return f"does not fit: {format_bytes(memory.total)} of {format_bytes(job.cluster.allowed)}"
    other = PlannedShape.of(job, shape)
    slower = other.time.total / best.time.total - 1
    parts = best.time.parts
    name = max(parts, key=lambda part: other.time.parts[part] - parts[part])
    if slower <= 0 or other.time.parts[name] <= parts[name]:
        more = other.memory.total - best.memory.total
        return f"as quick, but takes {format_bytes(more)} more" if more > 0 else "equal in time and memory"
    return f"{slower:.1%} slower: {_reason(name, best, other)}"


def _reason(name: str, best: PlannedShape, other: PlannedShape) -> str:
    """What grew most, from the best one to the other."""
    if name == "bubble":
        return f"bubble {other.time.bubble_fraction:.1%} instead of {best.time.bubble_fraction:.1%}"
    before, after = best.time.parts[name], other.time.parts[name]
    said = f"{_NAMES[name]} {format_time(after, 's')} instead of {format_time(before, 's')}"
    kind = _KINDS.get(name)
    crossing = kind in set(other.job.crosses(other.shape)) - set(best.job.crosses(best.shape))
    return f"{kind} crosses the node boundary, {said}" if crossing else said


def _around(job: Job, shape: Shape) -> Iterator[Shape]:
    """Each of tp, pp and dp doubled at the cost of another; b, v, recomputation and sharding changed."""
    for up in ("tp", "pp", "dp"):
        for down in ("tp", "pp", "dp"):
            if up != down and getattr(shape, down) % 2 == 0:
                sizes = {up: 2 * getattr(shape, up), down: getattr(shape, down) // 2}
                yield _settled(job, replace(shape, **sizes))
    for factor in (Fraction(2), Fraction(1, 2)):
        if (shape.microbatch * factor).denominator == 1:
            yield _settled(job, replace(shape, microbatch=int(shape.microbatch * factor)))
    layers = job.layers_on(shape, 0)
    divisors = [v for v in range(1, layers + 1) if layers % v == 0 and shape.pp * v <= job.model.layers]
    for v in (
        max((v for v in divisors if v < shape.chunks), default=None),
        min((v for v in divisors if v > shape.chunks), default=None),
    ):
        if v is not None and shape.pp > 1:
            yield replace(shape, chunks=v)
    yield from (replace(shape, recompute=other) for other in RECOMPUTE if other != shape.recompute)
    yield from (replace(shape, sharding=other) for other in SHARDING if other != shape.sharding and shape.dp > 1)


def _settled(job: Job, shape: Shape) -> Shape:
    """With m from the batch, and as many chunks as there were, or else as many as can be."""
    shape = replace(shape, microbatches=max(1, job.batch // (shape.dp * shape.microbatch)))
    able = (replace(shape, chunks=v) for v in range(shape.chunks, 0, -1))
    return next((one for one in able if job.problem(one) is None), shape)


def _change(best: Shape, shape: Shape) -> str:
    """ "tp 8 -> 16, dp 4 -> 2, m 8 -> 16"."""
    symbols = {"microbatch": "b", "microbatches": "m", "chunks": "v"}
    names = ("tp", "pp", "dp", "microbatch", "microbatches", "chunks", "recompute", "sharding")
    changed = [name for name in names if getattr(best, name) != getattr(shape, name)]
    return ", ".join(f"{symbols.get(n, n)} {getattr(best, n)} -> {getattr(shape, n)}" for n in changed)
