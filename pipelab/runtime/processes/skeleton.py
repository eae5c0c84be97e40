"""A stage on its way to another process: its modules travel, its tensors are in memory that both share.

Both look its tensors up at every step: a walk through the tree that has been made is gone over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pipelab.runtime.processes.block import Block
from pipelab.runtime.processes.carry import pack, unpack

__all__ = ["Modules", "Skeleton", "fleshed", "skeleton", "tensors_of"]


@dataclass(frozen=True)
class Skeleton:
    """A stage without its tensors, which are in the block."""

    stage: int
    data: bytes
    tensors: tuple[tuple[int, bool, bool, bytes | None], ...]
    """In the order of stand-ins: place in the block, whether it is a parameter, whether that takes a gradient, what
    else was hung on it."""


def skeleton(s: int, stage: nn.Module, own: Sequence[Tensor]) -> Skeleton:
    """``stage`` with stand-ins for its tensors, which are in the block."""
    places = {id(tensor): place for place, tensor in enumerate(own)}
    told: list[tuple[int, bool, bool, bytes | None]] = []

    def stand_in(obj: Any) -> int | None:
        if not isinstance(obj, Tensor) or id(obj) not in places:
            return None
        more = pack(vars(obj), f"what hangs on a parameter of stage {s}") if vars(obj) else None
        told.append((places[id(obj)], isinstance(obj, nn.Parameter), obj.requires_grad, more))
        return len(told) - 1

    return Skeleton(s, pack(stage, f"stage {s}", stand_in), tuple(told))


def fleshed(bare: Skeleton, block: Block) -> nn.Module:
    """A stage whose tensors are in the block."""
    made: dict[int, Tensor] = {}

    def restore(number: int) -> Tensor:
        place, parameter, requires_grad, more = bare.tensors[number]
        if place not in made:  # a tied parameter is met twice, and stays one
            shared = block.tensors[place]
            made[place] = nn.Parameter(shared, requires_grad) if parameter else shared
            vars(made[place]).update(unpack(more) if more else {})
        return made[place]

    stage: nn.Module = unpack(bare.data, restore)
    return stage


class Modules:
    """The modules of some stages, each of a stage's once. They are found again when one has other children."""

    def __init__(self, *stages: nn.Module) -> None:
        self._stages = stages
        self._walk()

    def _walk(self) -> None:
        self._found = [list(stage.modules()) for stage in self._stages]
        self._children = [[list(module._modules.values()) for module in found] for found in self._found]

    def all(self) -> list[nn.Module]:
        """All modules, stage by stage."""
        now = [[list(module._modules.values()) for module in found] for found in self._found]
        if now != self._children:
            self._walk()
        return [module for found in self._found for module in found]

    def tensors(self) -> list[Tensor]:
        """What :func:`tensors_of` finds, stage by stage."""
        self.all()
        tensors: list[Tensor] = []
        for found in self._found:
            for held in ([m._parameters for m in found], [m._buffers for m in found]):
                tensors += {id(t): t for own in held for t in own.values() if t is not None}.values()
        return tensors


def tensors_of(stage: nn.Module) -> list[Tensor]:
    """A stage's parameters and buffers, each once, in the order that both sides count them in."""
    return [*stage.parameters(), *stage.buffers()]
