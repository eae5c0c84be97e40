"""What a schedule without a flush computes, in one process: its formula, literally. The proof of such a run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.runtime.setup.microbatches import default_terms, reduction_of
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
    loss_terms: Callable[[Any], float] | None = None,
) -> list[dict[str, Tensor]]:
    """Train a copy of ``model``; returns its weights after each update, the beginning first.

    ``stages[s]`` are the names of stage s's parameters. Micro-batch i is computed, in one piece, with version
    ``version(s, i)`` of the weights of each stage s, where version k is what ``k`` updates have made. After ``every``
    micro-batches each stage's ``optimizer`` steps the newest weights with the gradient of their loss: the mean over all
    their terms, as ``loss_terms`` counts them (see Pipeline), or the sum, if ``loss`` sums. Weights that are frozen, or
    get no gradient, stay. ``keep``: so many of the last weights stay, and older ones are emptied to save memory.
    """
    newest = copy.deepcopy(model)
    named = dict(newest.named_parameters())
    learning = [[(name, named[name]) for name in names if named[name].requires_grad] for names in stages]
    steppers = [optimizer(found) for found in learning if found]
    history = [{name: p.detach().clone() for name, p in named.items()}]
    mixed = copy.deepcopy(model)
    leaves = dict(mixed.named_parameters())
    for i, (x, y) in enumerate(microbatches):
        if i % every == 0:
            mixed.zero_grad()
            weights = _weights(loss, [y for _, y in microbatches[i : i + every]], loss_terms)
        with torch.no_grad():
            for s, names in enumerate(stages):
                for name in names:
                    leaves[name].copy_(history[version(s, i)][name])
        output, weight = mixed(x), weights[i % every]
        (weight * (loss(output, y) if weight else _nothing(output))).backward()
        if (i + 1) % every == 0:
            for name, p in named.items():
                p.grad = leaves[name].grad
            for stepper in steppers:
                stepper.step()
            history.append({name: p.detach().clone() for name, p in named.items()})
            if keep is not None and len(history) > keep:
                history[-keep - 1] = {}
    return history


def _weights(loss: Any, targets: Sequence[Any], terms: Callable[[Any], float] | None) -> list[float]:
    """What the loss of each micro-batch of an update counts in it."""
    if reduction_of(loss) == "sum":
        return [1.0] * len(targets)
    counts = [float((terms or default_terms(loss))(each)) for each in targets]
    return [count / (sum(counts) or 1.0) for count in counts]


def _nothing(output: Any) -> Tensor:
    """The loss of a micro-batch whose targets are all ignored, where a mean over no terms would be nan."""
    tensors = [output] if isinstance(output, Tensor) else output
    return torch.stack([tensor.sum() * 0 for tensor in tensors if tensor.is_floating_point()]).sum()
