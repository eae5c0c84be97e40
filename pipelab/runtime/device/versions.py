"""The versions of one stage's weights in a schedule without a flush, and the update that makes the next.

A forward runs on leaves of its own version, which share memory with the caller's parameters as long as that version is
the newest. An update changes the parameters in place where no one needs the old version; else they move to new memory
first, and the old version keeps its own. The caller's parameters always are the newest version.

A leaf has its parameter's class, its attributes and its hooks. Which parameters train is seen when a step begins: one
that is frozen stays as it is from then on, one that is no longer frozen is trained from then on.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from functools import reduce
from typing import Any

import torch
from torch import nn

from pipelab.errors import PipelabError
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
        self._module, self._meter, self._apart = module, meter, apart
        self._names = {id(p): name for name, p in module.named_parameters()}
        self._homes: list[torch.Tensor] = []
        self._leaves: dict[int, list[nn.Parameter]] = {}
        self._looks = True
        self._spent = False
        """Whether gradients lie in the parameters that have gone into an update."""
        self.newest = 0
        self.peak = 1
        self._places: dict[int, tuple[nn.Parameter, list[Place]]] = {}
        self.parameters: list[nn.Parameter] = []
        self.shown = self.parameters
        """The leaves that the module's code meets now."""

    @property
    def bytes(self) -> int:
        """Of one version."""
        return sum(p.nbytes for p in self.parameters)

    @property
    def gradient_bytes(self) -> int:
        """What has come since the last update, where it does not lie in the parameters."""
        leaves = [leaf for leaves in self._leaves.values() for leaf in leaves]
        return sum(leaf.nbytes for leaf in leaves if leaf.grad is not None)

    def gradients(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(name, gradient) of what has come since the last update."""
        for leaves in self._leaves.values() if self.stash else [self.parameters]:
            for leaf, p in zip(leaves, self.parameters, strict=True):
                if leaf.grad is not None:
                    yield self._names[id(p)], leaf.grad

    def begin(self) -> None:
        """A step begins: the peak is counted anew."""
        self._choose()
        self.peak = max(1, len(self._leaves))
        for version in self._leaves.values():
            self._meter.add_own(version)

    def _choose(self) -> None:
        """Take in the parameters that train; of one that was frozen until now all versions are alike."""
        if not self._leaves:
            self._places, self.parameters = {}, []
            self.shown = self.parameters
            self._leaves = {self.newest: []} if self.stash else {}
        groups = [] if self.optimizer is None else self.optimizer.param_groups
        new = {id(p) for group in groups for p in group["params"] if p.requires_grad} - self._places.keys()
        for owner in self._module.modules() if new else ():
            for name, p in owner._parameters.items():
                if p is not None and id(p) in new:
                    self._places.setdefault(id(p), (p, []))[1].append((owner, name))
        for p, _ in list(self._places.values())[len(self.parameters) :]:
            self.parameters.append(p)
            if self._apart and self.stash:
                self._homes.append(p.data)
                p.data = p.data.clone()
            for version, leaves in self._leaves.items():
                leaves.append(nn.Parameter(p.data if version == self.newest else p.data.clone()))
        for leaves in self._leaves.values():
            for leaf, p in zip(leaves, self.parameters, strict=True):
                _follow(p, leaf)

    def use(self, version: int) -> None:
        """Show ``version`` to the module's code."""
        if self._spent:
            self._spent = False
            for p in self.parameters:
                p.grad = None
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

    def update(self, in_use: Container[int], behind: int | None = None) -> None:
        """Step the optimizer on the gradients that have come since its last step; ``in_use`` are versions kept.

        ``behind`` is of the forwards that are still to come, where that is less than of all.
        """
        for k, p in enumerate(self.parameters):
            if self.stash:
                found = [grad for leaves in self._leaves.values() if (grad := leaves[k].grad) is not None]
                p.grad = reduce(torch.add, found) if found and p.requires_grad else None
        for leaves in self._leaves.values():
            for leaf in leaves:
                leaf.grad = None
        kept = self._make_room(in_use, self.behind if behind is None else behind) if self.stash else []
        looks = [leaf.detach().clone() for leaf in kept] if self._looks else []
        if self.optimizer is not None:
            self.optimizer.step()
            if self.scheduler is not None:
                self.scheduler.step()
        if self.stash:
            self._follow_memory(self._leaves[self.newest + 1])
        if looks:
            self._looks = False
            if not all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in zip(looks, kept, strict=True)):
                raise PipelabError(
                    f"{type(self.optimizer).__name__} has changed a version of the weights that is still in use: it "
                    "steps memory that it remembers from before, and not the parameters' own; without a flush each "
                    "version has memory of its own, so take an optimizer that steps p where p is, as torch.optim's do"
                )
        self._spent = True
        self.newest += 1
        self.peak = max(self.peak, len(self._leaves))

    def _follow_memory(self, leaves: list[nn.Parameter]) -> None:
        """An optimizer may put its result into new memory: ``p.data = ...``."""
        if any(leaf.data_ptr() != p.data_ptr() for leaf, p in zip(leaves, self.parameters, strict=True)):
            self._meter.forget_own(leaves)
            for leaf, p in zip(leaves, self.parameters, strict=True):
                leaf.data = p.data
            self._meter.add_own(leaves)

    def _make_room(self, in_use: Container[int], behind: int) -> list[nn.Parameter]:
        """Give the next version memory of its own, if the newest is needed further on: returns that one's leaves."""
        needed_from = self.newest + 1 - behind
        for version in [v for v in self._leaves if v < needed_from and v not in in_use]:
            if version != self.newest:
                self._meter.forget_own(self._leaves.pop(version))
        if self.newest in in_use or self.newest >= needed_from:
            for p in self.parameters:
                p.data = p.data.clone()
            self._leaves[self.newest + 1] = self._fresh()
            self._meter.add_own(self._leaves[self.newest + 1])
            return self._leaves[self.newest]
        self._leaves[self.newest + 1] = self._leaves.pop(self.newest)
        return []

    def _fresh(self) -> list[nn.Parameter]:
        """Leaves on the parameters' present memory, with version counters of their own."""
        leaves = [nn.Parameter(p.data) for p in self.parameters]
        for p, leaf in zip(self.parameters, leaves, strict=True):
            _follow(p, leaf)
        return leaves

    def _show(self, leaves: list[nn.Parameter]) -> None:
        if leaves is self.shown:
            return
        for leaf, (_, places) in zip(leaves, self._places.values(), strict=True):
            for owner, name in places:
                setattr(owner, name, leaf)
        self.shown = leaves


def _follow(p: nn.Parameter, leaf: nn.Parameter) -> None:
    """Make ``leaf``, but for its memory and its gradient, what the caller has made of ``p``."""
    leaf.__class__, leaf.__dict__ = type(p), vars(p)
    leaf._backward_hooks, leaf._post_accumulate_grad_hooks = p._backward_hooks, p._post_accumulate_grad_hooks
