"""The proof: a step's gradients against those of the caller's own model, in one piece, on the whole batch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.errors import ConfigurationError
from pipelab.models.shards import whole as put_together
from pipelab.models.split import SplitModel
from pipelab.runtime.measuring.bare import fill, is_bare
from pipelab.runtime.measuring.reference import (
    Chain,
    Reference,
    gradient_error,
    moved,
    reference_of,
    unsplit_gradients,
)
from pipelab.runtime.setup.assembly import StageWithLoss
from pipelab.runtime.setup.by_name import named_parameters, named_state
from pipelab.runtime.setup.replicas import Replicas
from pipelab.runtime.setup.settings import Settings

__all__ = ["prove_gradients"]


def prove_gradients(
    found: Mapping[str, Tensor],
    replicas: Replicas,
    whole: nn.Module | SplitModel | None,
    given: tuple[Any, Any],
    settings: Settings,
    *,
    step: int,
) -> float:
    """max |g - g*| / max |g*| over the whole model.

    ``found`` and ``given`` (inputs, targets) are what this process has of them. g* is that of ``whole``, the caller's
    model; without one, of the stages in a row. With several processes all meet in the one that drives device 0: its
    copy of the model gets everyone's weights.
    """
    assert settings.loss is not None
    weightless = is_bare(whole)
    here = len(replicas.peers.own) == settings.schedule.devices and not weightless
    sent: dict[int, Any] = dict(replicas.stages) if here else {}
    tell = _tensors if whole is not None else _copies
    replicas.peers.agree(lambda: None if here else sent.update(tell(replicas.stages)))
    parts = replicas.peers.gather((sent, found, given))
    place = replicas.places[settings.schedule.placement[0][0]] if here else torch.device("cpu")
    one_place = all(other == place for other in replicas.places)

    def compare() -> float:
        if parts is None:
            return 0.0
        told = dict(sorted((pair for sent, _, _ in parts for pair in sent.items()), key=lambda pair: pair[0]))
        grads = {name: grad for _, found, _ in parts for name, grad in found.items()}
        x, y = (next((one[k] for _, _, one in parts if one[k] is not None), None) for k in (0, 1))
        loss: Any = settings.loss
        options = {"seed": settings.seed, "step": step}
        if whole is None:
            true = _of_chain(told, replicas, place, loss, (x, y), options)
        elif here and one_place:
            true = unsplit_gradients(whole, loss, *moved((x, y), place), **options)
        else:
            copied, own_loss = _copy((None if weightless else whole, loss if isinstance(loss, nn.Module) else None))
            copied = whole if weightless else copied
            module = copied.model if isinstance(copied, SplitModel) else copied
            if weightless:
                fill(copied, full=True)
            if not here:
                _fill(module, own_loss, told)
            module.to(place)
            true = unsplit_gradients(copied, own_loss or loss, *moved((x, y), place), **options)
            if weightless:
                fill(copied, full=False)
        return gradient_error(grads, true.gradients)

    return replicas.peers.agree(compare)[0]


def _of_chain(
    stages: Mapping[int, nn.Module],
    replicas: Replicas,
    place: torch.device,
    loss: Callable[[Any, Any], Tensor],
    given: tuple[Any, Any],
    options: Mapping[str, int],
) -> Reference:
    """Gradients of the stages in a row, with what is tied made one again."""
    if replicas.ties:  # not the caller's own
        stages = _copy(dict(stages))
    kept = {(s, name): p for s, stage in stages.items() for name, p in named_parameters(s, stage)}
    for tie in replicas.ties:
        for holder in tie.borrowers:
            _replace(stages[holder[0]], kept[holder], kept[tie.home])
    named = {name: p for (s, name), p in kept.items() if (s, name) not in replicas.borrowed and p.requires_grad}
    last = stages[max(stages)]
    own_loss = last.loss if isinstance(last, StageWithLoss) else loss
    return reference_of(Chain(list(stages.values()), place), own_loss, *given, named, **options)


def _replace(stage: nn.Module, parameter: nn.Parameter, other: nn.Parameter) -> None:
    for module in stage.modules():
        for name, own in module._parameters.items():
            if own is parameter:
                module._parameters[name] = other


def _tensors(stages: Mapping[int, nn.Module]) -> dict[int, dict[str, Tensor]]:
    return {
        s: {name: put_together(t.detach()).cpu() for name, t in named_state(s, stage)} for s, stage in stages.items()
    }


def _fill(model: nn.Module, loss: nn.Module | None, told: Mapping[int, Mapping[str, Tensor]]) -> None:
    """Weights and buffers into a copy of the model, by name."""
    state = {name: tensor for tensors in told.values() for name, tensor in tensors.items()}
    own = dict(model.state_dict(keep_vars=True))
    own |= {f"loss.{name}": t for name, t in loss.state_dict(keep_vars=True).items()} if loss is not None else {}
    with torch.no_grad():
        for name, tensor in own.items():
            if name in state:
                tensor.copy_(state[name])


def _copies(stages: Mapping[int, nn.Module]) -> dict[int, nn.Module]:
    return {s: stage.cpu() for s, stage in _copy(dict(stages)).items()}


def _copy(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except RuntimeError as error:
        raise ConfigurationError(
            f"verify takes a copy here, and one cannot be made ({str(error).splitlines()[0]}): does a layer "
            "keep its output? Keep output.detach(), or use launch='threads'"
        ) from error
