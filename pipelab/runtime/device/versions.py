"""The versions of one stage's weights in a schedule without a flush, and the update that makes the next.

A forward runs on leaves of its own version, which share memory with the caller's parameters as long as that version is
the newest. An update changes the parameters in place where no one needs the old version; else they move to new memory
first, and the old version keeps its own. The caller's parameters always are the newest version.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import torch
from torch import nn

from pipelab.runtime.device.memory import MemoryMeter

__all__ = ["Versions"]

Place = tuple[nn.Module, str]


class Versions:
    """Those of ``module``, which ``optimizer`` and ``scheduler`` step.

    ``behind``: by how many updates a forward's version may be behind the newest. ``stash=False`` keeps none: backwards
    meet weights that have changed. ``apart``: others write into the parameters' own memory between steps, so all
    versions are kept beside it until the pipeline is empty.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        scheduler: Any,
        meter: MemoryMeter,
        *,
        behind: int,
        stash: bool = True,
        apart: bool = False,
    ) -> None:
        self.optimizer, self.scheduler, self.behind, self.stash = optimizer, scheduler, behind, stash
        self._meter, self._apart = meter, apart
        stepped = set() if optimizer is None else {id(p) for group in optimizer.param_groups for p in group["params"]}
        self._places: dict[int, tuple[nn.Parameter, list[Place]]] = {}
        for owner in module.modules():
            for name, p in owner._parameters.items():
                if p is not None and id(p) in stepped and p.requires_grad:
                    self._places.setdefault(id(p), (p, []))[1].append((owner, name))
        self.parameters = [p for p, _ in self._places.values()]
        self.bytes = sum(p.nbytes for p in self.parameters)
        self._homes: list[torch.Tensor] = []
        self._leaves: dict[int, list[nn.Parameter]] = {}
        self._shown: list[nn.Parameter] = self.parameters
        self._looks = True
        self.newest = 0
        self.peak = 1

    def begin(self) -> None:
        """A step begins: the peak is counted anew."""
        if not self._leaves and self.stash:
            if self._apart:
                self._homes = [p.data for p in self.parameters]
                for p in self.parameters:
                    p.data = p.data.clone()
            self._leaves[self.newest] = self._fresh()
        self.peak = max(1, len(self._leaves))
        for version in self._leaves.values():
            self._meter.add_own(version)

    def use(self, version: int) -> None:
        """Show ``version`` to the module's code."""
        if self.stash:
            self._show(self._leaves[version])

    def rest(self) -> None:
        """Between steps the module holds the caller's parameters again."""
        self._show(self.parameters)

    def empty(self) -> None:
        """No micro-batch is on its way: no version but the newest is kept."""
        self.rest()
        with torch.no_grad():
            for home, p in zip(self._homes, self.parameters, strict=False):
                home.copy_(p.data)
                p.data = home
        self._homes, self._leaves = [], {}

    def update(self, in_use: Container[int]) -> None:
        """Step the optimizer on the gradients that have come since its last step; ``in_use`` are versions kept."""
        for k, p in enumerate(self.parameters):
            if self.stash:
                found = [leaves[k].grad for leaves in self._leaves.values() if leaves[k].grad is not None]
                p.grad = None if not found else found[0] if len(found) == 1 else torch.stack(found).sum(0)
        for leaves in self._leaves.values():
            for leaf in leaves:
                leaf.grad = None
        if self.stash:
            self._make_room(in_use)
        if self.optimizer is not None:
            self.optimizer.step()
            if self.scheduler is not None:
                self.scheduler.step()
        if not self.stash:
            for p in self.parameters:
                p.grad = None
        self.newest += 1
        self.peak = max(self.peak, len(self._leaves))

    def _make_room(self, in_use: Container[int]) -> None:
        """Give the next version memory of its own, if the newest is needed further on."""
        needed_from = self.newest + 1 - self.behind
        for version in [v for v in self._leaves if v < needed_from and v not in in_use]:
            if version != self.newest:
                self._meter.forget_own(self._leaves.pop(version))
        if self.newest in in_use or self.newest >= needed_from:
            for p in self.parameters:
                p.data = p.data.clone()
            self._leaves[self.newest + 1] = self._fresh()
            self._meter.add_own(self._leaves[self.newest + 1])
        else:
            self._leaves[self.newest + 1] = self._leaves.pop(self.newest)

    def _fresh(self) -> list[nn.Parameter]:
        """Leaves on the parameters' present memory, with version counters of their own."""
        return [nn.Parameter(p.data) for p in self.parameters]

    def _show(self, leaves: list[nn.Parameter]) -> None:
        if leaves is self._shown:
            return
        for leaf, (_, places) in zip(leaves, self._places.values(), strict=True):
            for owner, name in places:
                setattr(owner, name, leaf)
        self._shown = leaves
