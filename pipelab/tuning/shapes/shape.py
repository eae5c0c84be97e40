"""One way of using a cluster, and what has to hold for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipelab.tuning.shapes.cluster import Cluster
from pipelab.tuning.shapes.facts import ModelFacts

__all__ = ["ORDERS", "RECOMPUTE", "SHARDING", "Job", "Shape"]

RECOMPUTE = ("none", "selective", "full")
"""What is computed again for a backward: nothing, attention scores, or each layer from its input."""
SHARDING = ("none", "optimizer", "gradients", "parameters")
"""What is split over dp: nothing, or up to ZeRO-1, ZeRO-2 and ZeRO-3 (FSDP) of arXiv 1910.02054."""
ORDERS = ("tp-dp-pp", "tp-pp-dp")
"""How devices are numbered, innermost first: Megatron-LM's way, and that of arXiv 2407.21783."""


@dataclass(frozen=True, slots=True)
class Shape:
    """dp replicas of a pipeline of pp stages times ``chunks``, each stage on tp devices.

    ``microbatch`` is b, the sequences of a micro-batch. Each replica runs m = ``microbatches`` of them in a step.
    """

    dp: int
    pp: int
    tp: int
    microbatch: int
    microbatches: int
    chunks: int = 1
    recompute: str = "none"
    sharding: str = "none"

    @property
    def schedule(self) -> str:
        """The schedule that it runs."""
        return "interleaved" if self.chunks > 1 else "1f1b"

    def in_flight(self, device: int) -> float:
        """Full shares of micro-batches that ``device`` of the pipeline holds at most (arXiv 2104.04473, 2.2)."""
        p, v = self.pp, self.chunks
        warmup = (2 if v > 1 else 1) * (p - 1 - device) + (v - 1) * p
        return min(warmup + 1, self.microbatches * v) / v

    def __str__(self) -> str:
        chunks = f", v = {self.chunks}" if self.chunks > 1 else ""
        return (
            f"dp {self.dp}, pp {self.pp}, tp {self.tp}, b = {self.microbatch}, m = {self.microbatches}{chunks}, "
            f"recompute {self.recompute}, sharding {self.sharding}"
        )


@dataclass(frozen=True)
class Job:
    """What is to be trained on what: a batch of ``batch`` sequences, and what all shapes have in common.

    ``overlap``: messages between replicas travel while devices compute. ``order``: see ``ORDERS``.
    """

    model: ModelFacts
    cluster: Cluster
    batch: int
    sequence_parallel: bool = True
    overlap: bool = True
    order: str = ORDERS[0]

    def problem(self, shape: Shape) -> str | None:
        """Why ``shape`` cannot be, leaving its memory aside; None if it can."""
        model, devices = self.model, shape.dp * shape.pp * shape.tp
        if devices != self.cluster.devices:
            return f"dp * pp * tp is {devices}, the cluster has {self.cluster.devices} devices"
        for what, count in (("heads", model.heads), ("kv_heads", model.groups), ("ffn_width", model.feed_forward)):
            if count % shape.tp:
                return f"tp {shape.tp} does not divide {what} {count}"
        if shape.pp * shape.chunks > model.layers:
            return f"{shape.pp * shape.chunks} stages need as many layers, the model has {model.layers}"
        if -(-model.layers // shape.pp) % shape.chunks:
            return f"v = {shape.chunks} does not divide a device's {-(-model.layers // shape.pp)} layers"
        if shape.dp * shape.microbatch * shape.microbatches != self.batch:
            return f"dp {shape.dp} times b {shape.microbatch} does not divide the batch of {self.batch}"
        if shape.chunks > 1 and (shape.pp == 1 or shape.microbatches % shape.pp):
            return f"v = {shape.chunks} needs pp > 1 and m divisible by pp: m = {shape.microbatches}, pp = {shape.pp}"
        return None

    def layers_on(self, shape: Shape, device: int) -> int:
        """Layers of a device of the pipeline; a remainder goes to the first stages, one layer each."""
        small, rest = divmod(self.model.layers, shape.pp * shape.chunks)
        return shape.chunks * small + max(0, -(-(rest - device) // shape.pp))

    def group(self, shape: Shape, kind: str) -> tuple[int, int]:
        """(stride, size) of the groups of ``kind``: "tp", "pp" or "dp"."""
        stride = 1
        for inner in self.order.split("-"):
            if inner == kind:
                break
            stride *= getattr(shape, inner)
        return stride, getattr(shape, kind)

    def crosses(self, shape: Shape) -> Iterator[str]:
        """The kinds whose groups leave a node."""
        for kind in self.order.split("-"):
            if not self.cluster.holds(*self.group(shape, kind)):
                yield kind
