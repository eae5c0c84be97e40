"""Bytes of collectives: counted where they are issued, and by formula.

What each process sends, in the ring algorithms that keep every link busy (n processes; S bytes of the whole tensor)::

    all-gather, reduce-scatter    (n - 1) / n * S
    all-reduce                  2 (n - 1) / n * S      a reduce-scatter and an all-gather
    broadcast                     S                    from the one that has it
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Traffic", "TrafficCounter", "sharding_traffic", "tensor_traffic"]

_KINDS = {
    "all_reduce": "all-reduce",
    "allreduce_": "all-reduce",
    "all_gather_into_tensor": "all-gather",
    "_allgather_base_": "all-gather",
    "reduce_scatter_tensor": "reduce-scatter",
    "_reduce_scatter_base_": "reduce-scatter",
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


class TrafficCounter(TorchDispatchMode):
    """Counts the collectives that are issued inside it, in this thread: ``found[axis, kind]``.

    ``axes`` are the axes of the mesh by the names of their groups.
    """

    def __init__(self, mesh: Any) -> None:
        super().__init__()
        names = mesh.mesh_dim_names or ()
        self._axes = {mesh.get_group(axis).group_name: (axis, mesh[axis].size()) for axis in names}
        self.found: Mapping[tuple[str, str], Traffic] = defaultdict(Traffic)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What torch asks before each of its operators."""
        if "c10d" in func.namespace:
            self._note(func._opname, pytree.tree_leaves((args, kwargs)))
        return func(*args, **(kwargs or {}))

    def _note(self, name: str, given: list[Any]) -> None:
        groups = [one if isinstance(one, str) else _group_name(one) for one in given]
        at = next((self._axes[group] for group in groups if group in self._axes), None)
        if name not in _KINDS or at is None:
            return
        axis, processes = at
        sizes = [one.nbytes for one in given if isinstance(one, Tensor)]
        size = max(sizes) * (processes if name == "all_gather_into_tensor" else 1)
        self.found[axis, _KINDS[name]] += Traffic.of(_KINDS[name], size, processes)  # type: ignore[index]


def _group_name(given: Any) -> str:
    """The name of a group that an operator was given in a box."""
    if not isinstance(given, torch.ScriptObject):
        return ""
    try:
        return str(dist.ProcessGroup.unbox(given).group_name)
    except RuntimeError:  # what a reduction does is in such a box, too
        return ""
