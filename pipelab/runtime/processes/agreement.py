"""Before step 1: do all ranks run the same? Digests are compared, and where they differ the difference is named."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from pipelab.errors import ConfigurationError
from pipelab.models.split import SplitModel
from pipelab.runtime.peers import Peers
from pipelab.runtime.setup.settings import Settings
from pipelab.schedules.schedule import Schedule
from pipelab.version import __version__

__all__ = ["require_agreement"]


def require_agreement(peers: Peers, settings: Settings, model: Any, cuts: Any) -> None:
    """Raise ConfigurationError on all ranks if two of them build different schedules, layers or settings."""
    told = _told(settings, model, cuts)
    digest = hashlib.sha256(repr(sorted(told.items())).encode()).hexdigest()
    if len(set(peers.exchange(digest))) == 1:
        return
    everyone = peers.exchange(told)
    for rank, other in enumerate(everyone):
        for topic, mine in everyone[0].items():
            if other[topic] != mine:
                difference = _DIFFERENCES.get(topic, _plain)(topic, mine, other[topic], rank)
                raise ConfigurationError(
                    f"the ranks of this pipeline build different things: {difference}; "
                    "every rank must run the same program with the same arguments"
                )


def _told(settings: Settings, model: Any, cuts: Any) -> dict[str, Any]:
    schedule = settings.schedule
    layers: Any = "build_stage"
    if isinstance(model, SplitModel):
        model = model.model
    if isinstance(model, nn.Module):
        named = [*model.named_parameters(), *model.named_buffers()]
        layers = tuple((name, f"{str(t.dtype).removeprefix('torch.')}{list(t.shape)}") for name, t in named)
    return {
        "schedule": (schedule.name, schedule.to_csv(), schedule.placement, schedule.weights),
        "layers": layers,
        "cuts": None if cuts is None else tuple(cuts),
        "loss": _name(settings.loss),
        "optimizer": settings.optimizer is not None,
        "lr_scheduler": settings.lr_scheduler is not None,
        "clip_norm": settings.clip_norm,
        "post_validation": settings.post_validation,
        "shard": settings.shard,
        "tensor_plan": _plan(settings.tensor_plan),
        "tied": tuple(map(tuple, settings.tied)),
        "grad_scaler": None if settings.grad_scaler is None else settings.grad_scaler.state_dict(),
        "clock": settings.clock,
        "links": settings.links,
        "seed": settings.seed,
        "window": settings.window,
        "speeds": settings.speeds,
        "memory_limit": settings.limits,
        "versions": f"pipelab {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
    }


def _plan(plan: Any) -> Any:
    """What a plan says, in words: styles by name, or the function's name."""
    if isinstance(plan, Mapping):
        return tuple(sorted((name, type(style).__name__) for name, style in plan.items()))
    return _name(plan)


def _name(function: Any) -> str | None:
    if function is None:
        return None
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _plain(topic: str, first: Any, other: Any, rank: int) -> str:
    return f"{topic} is {first!r} on rank 0 and {other!r} on rank {rank}"


def _schedules(topic: str, first: Any, other: Any, rank: int) -> str:
    heads = [
        f"'{name}' for {len(csv.splitlines())} devices, {len(weights)} micro-batches"
        for name, csv, _, weights in (first, other)
    ]
    if heads[0] != heads[1]:
        return f"rank 0 has {heads[0]}, rank {rank} has {heads[1]}"
    one, two = (Schedule.from_csv(told[1]) for told in (first, other))
    for device, (mine, theirs) in enumerate(zip(one.programs, two.programs, strict=True)):
        for position, (a, b) in enumerate(zip(mine, theirs, strict=False)):
            if a != b:
                return f"slot {position} of device {device} is {a} on rank 0 and {b} on rank {rank}"
    return f"{topic} '{first[0]}' has other programs, placement or weights on rank {rank} than on rank 0"


def _layers(topic: str, first: Any, other: Any, rank: int) -> str:
    if isinstance(first, str) or isinstance(other, str):
        kinds = ["build_stage(s)" if isinstance(told, str) else "a model" for told in (first, other)]
        return f"rank 0 was given {kinds[0]}, rank {rank} {kinds[1]}"
    mine, theirs = dict(first), dict(other)
    for name in [*mine, *theirs]:
        a, b = mine.get(name, "no such tensor"), theirs.get(name, "no such tensor")
        if a != b:
            return f"{name} is {a} on rank 0 and {b} on rank {rank}"
    return f"the layers of rank {rank} come in another order than those of rank 0"


_DIFFERENCES: Mapping[str, Callable[[str, Any, Any, int], str]] = {"schedule": _schedules, "layers": _layers}
