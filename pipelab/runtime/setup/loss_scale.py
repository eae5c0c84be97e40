"""fp16's loss scaling, by ``torch.amp.GradScaler``, for stages that are updated all together or not at all.

The scaler's own ``step`` decides for one optimizer alone. Here one gradient that is not finite, on whichever stage,
skips the update of all, as it does for the unsplit model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from pipelab.errors import ConfigurationError
from pipelab.models.shards import whole

__all__ = ["advance", "require_scale", "require_scaler", "scale_of", "unscale"]


def require_scaler(scaler: Any, *, optimizer: bool) -> None:
    """Raise ConfigurationError unless it is a GradScaler that has something to do."""
    if scaler is None:
        return
    if not isinstance(scaler, torch.amp.GradScaler):
        raise ConfigurationError(
            f"grad_scaler must be a torch.amp.GradScaler, got {type(scaler).__name__}; try torch.amp.GradScaler('cuda')"
        )
    if not optimizer:
        raise ConfigurationError("grad_scaler needs an optimizer: it decides whether the update is made")


def require_scale(scaler: torch.amp.GradScaler | None, state: Any) -> None:
    """Raise ConfigurationError if a scaler that is on is to go on from the state of one that was off."""
    if scaler is not None and scaler.is_enabled() and "grad_scaler" in state and not state["grad_scaler"]:
        raise ConfigurationError("the state was saved with a grad_scaler that was off, and this one is on")


def scale_of(scaler: torch.amp.GradScaler | None) -> float:
    """What the loss is multiplied with."""
    return float(scaler.get_scale()) if scaler is not None and scaler.is_enabled() else 1.0


def unscale(parameters: Iterable[nn.Parameter], scale: float) -> bool:
    """Divide gradients by ``scale``; returns whether all are finite."""
    finite = True
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(1 / scale)
            values = parameter.grad._values() if parameter.grad.is_sparse else parameter.grad
            finite = finite and bool(whole(torch.isfinite(values).all()))
    return finite


def advance(scaler: torch.amp.GradScaler, *, finite: bool) -> None:
    """The scale of the next step: backed off after a skipped one, grown after enough good ones in a row."""
    told = scaler.state_dict()
    scale, good = told["scale"], told["_growth_tracker"]
    if not finite:
        scale, good = scale * told["backoff_factor"], 0
    elif good + 1 == told["growth_interval"]:
        grown = scale * told["growth_factor"]
        scale, good = (grown if math.isfinite(grown) else scale), 0
    else:
        good += 1
    scaler.load_state_dict({**told, "scale": scale, "_growth_tracker": good})
