"""Bytes on the fullest device of a shape, part by part."""

from __future__ import annotations

from dataclasses import dataclass, fields

from pipelab.quantities import format_bytes
from pipelab.tuning.shapes.shape import SHARDING, Job, Shape

__all__ = ["ShapeMemory", "memory_of"]


@dataclass(frozen=True, slots=True)
class ShapeMemory:
    """Bytes on one device of each pipeline.

    ``weights``, ``gradients`` and ``optimizer`` stay. ``activations`` are those of layers, for all micro-batches in
    flight, and of a layer that is recomputed. ``ends`` are those of embedding and head. ``buffers`` hold messages, and
    layers that are gathered for use.
    """

    device: int
    weights: float
    gradients: float
    optimizer: float
    activations: float
    ends: float
    buffers: float

    @property
    def parts(self) -> dict[str, float]:
        """Bytes by name."""
        return {part.name: getattr(self, part.name) for part in fields(self) if part.name != "device"}

    @property
    def total(self) -> float:
        """All of them."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.ends + self.buffers

    def __str__(self) -> str:
        named = ", ".join(f"{name} {format_bytes(size)}" for name, size in self.parts.items() if size)
        return f"device {self.device} of the pipeline: {named}"


def memory_of(job: Job, shape: Shape) -> ShapeMemory:
    """The fullest device's bytes: the first one's, or the last one's, which has the head.

    All others have no more layers than device 0, hold no more micro-batches, and have neither embedding nor head.
    """
    return max((on_device(job, shape, r) for r in {0, shape.pp - 1}), key=lambda one: one.total)


def on_device(job: Job, shape: Shape, device: int) -> ShapeMemory:
    """Bytes on one device of the pipeline."""
    model, tp, dp, split = job.model, shape.tp, shape.dp, SHARDING.index(shape.sharding)
    tokens, layers = shape.microbatch * model.tokens, job.layers_on(shape, device)
    first, last = device == 0, device == shape.pp - 1
    tied = model.vocabulary * model.width if model.tied and not first else 0
    embedding, head = first * model.embedding_parameters, last * (model.head_parameters + tied)
    parameters = (layers * model.layer_parameters + embedding + head) / tp
    # What is gathered, or whose gradient is summed, in one go; ZeRO-3 fetches the next one ahead.
    unit = max(model.layer_parameters, embedding, head) / tp

    def part(level: int, size: float) -> float:
        return size * parameters / (dp if split >= level else 1)

    whole, alone = model.kept_bytes(tp, job.sequence_parallel), model.input_bytes(tp, job.sequence_parallel)
    kept = {"none": whole, "selective": max(alone, whole - model.score_bytes / tp), "full": alone}[shape.recompute]
    flight = shape.in_flight(device)
    mask = model.width / (tp if job.sequence_parallel else 1) if model.dropout else 0
    buffers = 2 * (shape.pp > 1) * tokens * alone
    if dp > 1:
        buffers += unit * ((split >= 2) * model.gradient_bytes + (split >= 3) * 2 * model.value_bytes)
    return ShapeMemory(
        device,
        weights=part(3, model.value_bytes),
        gradients=part(2, model.gradient_bytes),
        optimizer=part(1, model.optimizer_bytes),
        activations=tokens * (layers * kept * flight + (whole - kept)),
        ends=tokens * (first * flight * mask + last * (2 * alone + 4 * model.vocabulary / tp)),
        buffers=buffers,
    )
