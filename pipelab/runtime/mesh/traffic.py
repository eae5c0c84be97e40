"""Bytes of collectives: counted where they are issued, and by formula.

What each process sends, in the ring algorithms that keep every link busy (n processes; S bytes of the whole tensor)::

    all-gather, reduce-scatter    (n - 1) / n * S
    all-reduce                  2 (n - 1) / n * S      a reduce-scatter and an all-gather
    broadcast                     (n - 1) / n * S      on average: all but the last one pass it on
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Collectives", "Traffic", "TrafficCounter", "shard_traffic", "tensor_traffic"]

_KINDS = {
    "all_reduce": "all-reduce",
    "allreduce_": "all-reduce",
    "all_gather_into_tensor": "all-gather",
    "_allgather_base_": "all-gather",
    "reduce_scatter_tensor": "reduce-scatter",
    "_reduce_scatter_base_": "reduce-scatter",
    "broadcast_": "broadcast",
}
"""Of torch's operators: functional ones, which DTensors use, and those of a group, which FSDP2 uses."""


@dataclass(frozen=True)
class Traffic:
    """How often collectives of one kind ran over one axis of a mesh, and bytes that each process sent for them."""

    count: int = 0
    sent: float = 0.0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.count + other.count, self.sent + other.sent)

    @classmethod
    def of(cls, kind: str, size: float, processes: int, count: int = 1) -> Traffic:
        """``count`` collectives of ``size`` bytes of the whole tensor each."""
        times = 2 if kind == "all-reduce" else 1
        return cls(count, count * times * (processes - 1) / processes * size)


Collectives = Mapping[str, Traffic]
"""By kind."""


class TrafficCounter(TorchDispatchMode):
    """Counts the collectives over the axes of ``mesh`` that are issued inside it: ``found[axis, kind]``.

    ``with TrafficCounter(mesh) as counter: pipeline.step(...)`` counts a step of this process, in all its threads: what
    tensor parallelism, FSDP2 and the sum over replicas move. It looks at each of torch's operators, which takes time,
    so no report has these figures. It has those that cost nothing: messages between stages (``deliveries``), and what
    is summed over replicas (``reductions``).
    """

    def __init__(self, mesh: Any) -> None:
        super().__init__()
        self._axes: dict[Any, tuple[str, int]] = {}
        for axis in mesh.mesh_dim_names or ():  # by their ranks, too: devices in threads have a group each
            group = mesh.get_group(axis)
            for key in (group.group_name, tuple(dist.get_process_group_ranks(group))):
                self._axes[key] = axis, mesh[axis].size()
        self.found: dict[tuple[str, str], Traffic] = defaultdict(Traffic)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What torch asks before each of its operators."""
        if "c10d" in func.namespace:
            self._note(func._opname, pytree.tree_leaves((args, kwargs)))
        return func(*args, **(kwargs or {}))

    def _note(self, name: str, given: list[Any]) -> None:
        keys = [key for one in given for key in ([one] if isinstance(one, str) else _keys(one))]
        at = next((self._axes[key] for key in keys if key in self._axes), None)
        if name not in _KINDS or at is None:
            return
        axis, processes = at
        sizes = [one.nbytes for one in given if isinstance(one, Tensor)]
        size = max(sizes) * (processes if name == "all_gather_into_tensor" else 1)
        self.found[axis, _KINDS[name]] += Traffic.of(_KINDS[name], size, processes)


def _keys(given: Any) -> list[Any]:
    """The name and the ranks of a group that an operator was given in a box."""
    if not isinstance(given, torch.ScriptObject):
        return []
    try:
        group = dist.ProcessGroup.unbox(given)
    except RuntimeError:  # what a reduction does is in such a box, too
        return []
    return [group.group_name, tuple(dist.get_process_group_ranks(group))]


def tensor_traffic(
    layers: int, microbatches: int, size: float, tp: int, *, sequence: bool = False, ends: int = 0, vector: float = 0.0
) -> Collectives:
    """What a stage of ``layers`` layers moves in a step over "tp", forward and backward.

    ``size``: bytes of one micro-batch's activation (sequences x tokens x width numbers). With ``sequence``, for
    ``sequence_parallel``: ``ends`` of embedding and head are in this stage, and ``vector`` bytes are one of the
    width: the four of a layer's norms have a gradient from each part of the sequence, which are summed once a step.
    """
    each = 4 * layers * microbatches
    if not sequence:
        return {"all-reduce": Traffic.of("all-reduce", size, tp, each)}
    return {
        "all-gather": Traffic.of("all-gather", size, tp, each + ends * microbatches),
        "reduce-scatter": Traffic.of("reduce-scatter", size, tp, each),
        "all-reduce": Traffic.of("all-reduce", vector, tp, 4 * layers),
    }


def shard_traffic(sizes: Sequence[float], microbatches: int, dp: int, *, again: bool = False) -> Collectives:
    """What a sharded stage moves in a step over "dp"; ``sizes``: bytes of each layer's weights.

    FSDP2 cuts each tensor along its first dimension: one that dp does not divide counts as the next that it does.
    """
    times = 2 * microbatches if again else 1
    gathered = sum((Traffic.of("all-gather", size, dp, times) for size in sizes), Traffic())
    return {
        "all-gather": gathered,
        "reduce-scatter": sum((Traffic.of("reduce-scatter", size, dp) for size in sizes), Traffic()),
    }
