"""One optimizer per stage, from the caller's factory, and what goes with it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from pipelab.errors import ConfigurationError
from pipelab.runtime.setup.replicas import Replicas
from pipelab.runtime.setup.settings import Settings

__all__ = ["make_optimizers", "require_optimizer", "step_schedulers"]

Optimizers = dict[tuple[int, int], torch.optim.Optimizer]
Schedulers = dict[tuple[int, int], Any]


def make_optimizers(settings: Settings, replicas: Replicas) -> tuple[Optimizers, Schedulers]:
    """Optimizers and learning-rate schedulers, by (device, stage). Raises ConfigurationError for what cannot work."""
    if settings.optimizer is None:
        return {}, {}
    optimizers: Optimizers = {}
    for (r, s), module in replicas.modules.items():
        named = [(name, p) for name, p in replicas.owned(s, module) if p.requires_grad]
        if named:
            optimizers[r, s] = _require_optimizer(settings.optimizer(named), named)
    if settings.lr_scheduler is None:
        return optimizers, {}
    schedulers = {key: settings.lr_scheduler(made) for key, made in optimizers.items()}
    if "U" in settings.schedule.ops and any(map(_watches_loss, schedulers.values())):
        raise ConfigurationError(
            f"ReduceLROnPlateau watches the loss of a whole batch, and schedule '{settings.schedule.name}' updates "
            "weights before it is known; take a scheduler that counts updates, such as StepLR, or '1f1b', which flushes"
        )
    return optimizers, schedulers


def require_optimizer(settings: Settings) -> None:
    """Raise ConfigurationError if there is none."""
    if settings.optimizer is None:
        raise ConfigurationError("this Pipeline has no optimizer; make it with optimizer=...")


def step_schedulers(schedulers: Iterable[Any], loss: float | None) -> None:
    """After the update; ReduceLROnPlateau watches the loss."""
    for scheduler in schedulers:
        scheduler.step(*([loss] if _watches_loss(scheduler) else []))


def _watches_loss(scheduler: Any) -> bool:
    return isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)


def _require_optimizer(made: Any, named: Sequence[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
    if not isinstance(made, torch.optim.Optimizer):
        raise ConfigurationError(f"optimizer must return a torch optimizer, got {type(made).__name__}")
    try:
        inspect.signature(made.step).bind()
    except TypeError:
        raise ConfigurationError(
            f"the step of {type(made).__name__} needs a closure that runs the model, several times in one step; use an "
            "optimizer that does not"
        ) from None
    own = {id(parameter) for _, parameter in named}
    strange = sum(id(p) not in own for group in made.param_groups for p in group["params"])
    if strange:
        raise ConfigurationError(
            f"optimizer returned one that also steps {strange} parameters that it was not given; each stage has its "
            "own: make it from the (name, parameter) pairs it gets, as in "
            "lambda named: torch.optim.SGD([p for _, p in named], lr=0.1)"
        )
    for group in made.param_groups:
        at_once = next((way for way in ("foreach", "fused") if group.get(way)), None)
        if at_once and len({getattr(p, "device_mesh", None) for p in group["params"]}) > 1:
            raise ConfigurationError(
                f"{type(made).__name__} with {at_once}=True steps a group of parameters at once, and these are not all "
                f"held by the same processes (tp, shard); leave {at_once} out"
            )
    return made
