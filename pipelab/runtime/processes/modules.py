"""A stage's modules and tensors, looked up at every step: a walk through the tree that has been made is gone over."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Modules", "tensors_of"]


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
