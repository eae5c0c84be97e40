"""A stage on its way to another process: its modules travel, its tensors are in memory that both share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pipelab.runtime.processes.block import Block
from pipelab.runtime.processes.carry import pack, unpack

__all__ = ["Skeleton", "fleshed", "skeleton"]


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
