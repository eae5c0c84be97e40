"""What a schedule without a flush computes, in one process: its formula, literally. The proof of such a run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.schedules.reserved import reserved

__all__ = ["delayed_training"]


@reserved
def delayed_training(
    model: nn.Module,
    stages: Sequence[Sequence[str]],
    optimizer: Callable[[list[tuple[str, nn.Parameter]]], torch.optim.Optimizer],
    loss: Callable[[Any, Any], Tensor],
    microbatches: Sequence[tuple[Any, Any]],
    version: Callable[[int, int], int],
    every: int = 1,
    keep: int | None = None,
) -> list[dict[str, Tensor]]:
    """Train a copy of ``model``; returns its weights after each update, the beginning first.

    ``stages[s]`` are the names of stage s's parameters. Micro-batch i is computed, in one piece, with version
    ``version(s, i)`` of the weights of each stage s, where version k is what ``k`` updates have made. After ``every``
    micro-batches each stage's ``optimizer`` steps the newest weights with the mean of their gradients. ``keep``: so
    many of the last weights stay, and older ones are emptied to save memory.
    """
    newest = copy.deepcopy(model)
    named = dict(newest.named_parameters())
    steppers = [optimizer([(name, named[name]) for name in names]) for names in stages]
    history = [{name: p.detach().clone() for name, p in named.items()}]
    mixed = copy.deepcopy(model)
    leaves = dict(mixed.named_parameters())
    sums = {name: torch.zeros_like(p) for name, p in named.items()}
    for i, (x, y) in enumerate(microbatches):
        with torch.no_grad():
            for s, names in enumerate(stages):
                for name in names:
                    leaves[name].copy_(history[version(s, i)][name])
        mixed.zero_grad()
        loss(mixed(x), y).backward()
        for name, p in leaves.items():
            if p.grad is not None:
                sums[name] += p.grad / every
        if (i + 1) % every == 0:
            for name, p in named.items():
                p.grad = sums[name].clone()
                sums[name].zero_()
            for stepper in steppers:
                stepper.step()
            history.append({name: p.detach().clone() for name, p in named.items()})
            if keep is not None and len(history) > keep:
                history[-keep - 1] = {}
    return history
