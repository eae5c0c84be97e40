"""Training without a flush, on the worked example: is what comes out what the schedule's formula says?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pipelab.models import TransformerLM, cut_layers, next_byte_loss
from pipelab.runtime.measuring.delayed import delayed_training
from pipelab.schedules import Action, Schedule
from pipelab.schedules.updates import over, steps_in_flight, versions

__all__ = ["LEARNING_RATE", "plain_sgd", "weight_error"]

LEARNING_RATE = 0.1


def plain_sgd(named: Sequence[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
    """The optimizer of these runs: rounding stays rounding under it."""
    return torch.optim.SGD([p for _, p in named], lr=LEARNING_RATE)


def weight_error(
    trained: Mapping[str, Tensor],
    start: TransformerLM,
    schedule: Schedule,
    batches: Sequence[tuple[Tensor, Tensor]],
    layers: int,
) -> float:
    """max |w - w*| / max |w*| of the whole model, in float64.

    ``trained`` are the weights that :func:`plain_sgd` made of ``start`` in steps of ``schedule`` over ``batches``, and
    a drain. w* are those that one process computes in float64 by the formula of the schedule, literally.
    """
    updating = schedule.updating
    assert updating is not None
    whole = over(schedule, len(batches))
    used = versions(whole)
    sizes = schedule.microbatch_sizes(len(batches[0][0]))
    pieces = [pair for x, y in batches for pair in zip(x.split(list(sizes)), y.split(list(sizes)), strict=True)]
    history = delayed_training(
        start.double(),
        _names(start, layers, schedule.stages),
        plain_sgd,
        next_byte_loss,
        pieces,
        lambda s, i: used[Action(s, "F", i)],
        updating.every,
        keep=schedule.devices + steps_in_flight(schedule) + 2,
    )
    true = history[-1]
    largest = max(float(one.abs().max()) for one in true.values())
    return max(float((trained[name].detach().cpu().double() - one).abs().max()) for name, one in true.items()) / largest


def _names(model: nn.Module, layers: int, stages: int) -> list[list[str]]:
    """The parameters of each stage by name: what stands before the layers in the first, what follows in the last."""
    home = {layer: s for s, part in enumerate(cut_layers(layers, stages)) for layer in part}
    found: list[list[str]] = [[] for _ in range(stages)]
    for name, _ in model.named_parameters():
        first, *rest = name.split(".")
        found[home[int(rest[0])] if first == "layers" else 0 if first == "embed" else stages - 1].append(name)
    return found
