"""The first value that is nan or infinite, found where it comes up."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from pipelab.errors import NonFiniteError
from pipelab.models.shards import local
from pipelab.runtime.device.payload import Payload
from pipelab.runtime.device.stage import StageRunner

__all__ = ["describe_non_finite", "watch"]


def watch(runner: StageRunner, *, gradients: bool) -> None:
    """From now on each action of ``runner`` raises NonFiniteError if what it made, or the loss, is not finite.

    ``gradients``: those too. (With a GradScaler an infinite one is nothing bad: it skips the update.)
    """
    runner.acts = {op: _watched(op, run, runner, gradients) for op, run in runner.acts.items()}


def _watched(
    op: str, run: Callable[[int, Payload | None], Payload | None], runner: StageRunner, gradients: bool
) -> Callable[[int, Payload | None], Payload | None]:
    def act(i: int, payload: Payload | None) -> Payload | None:
        if op == "F" and payload is None and runner.step.inputs is not None:
            _require("an input of the batch", runner.step.inputs[i].tensors)
        made = run(i, payload)
        if op == "F":
            _require("the activation that it gives", made.tensors if made is not None else ())
            if i in runner.losses:
                _require("the loss", [runner.losses[i][0]])
        elif gradients:
            if op in "BI" and made is not None:
                _require("the gradient of its input", made.tensors)
            if op in "BW":
                for name, gradient in runner.gradients():
                    _require(f"the gradient of '{name}'", [gradient])
        return made

    return act


def _require(what: str, tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        if found := describe_non_finite(tensor):
            raise NonFiniteError(f"{what} {found}")


def describe_non_finite(tensor: Tensor) -> str:
    """Says how many values of ``tensor`` are nan or infinite, and where the first is; nothing if all are finite."""
    values: Any = local(tensor.detach())
    if values.layout != torch.strided:
        values = values.coalesce().values() if values.layout == torch.sparse_coo else values.to_dense()
    if not (values.is_floating_point() or values.is_complex()) or bool((finite := torch.isfinite(values)).all()):
        return ""
    where = (~finite).nonzero()
    first = tuple(where[0].tolist())
    place = f" at {list(first)}" if first else ""
    if finite.numel() == 1:
        return f"is {values[first].item()}"
    return f"is not finite in {len(where):,} of {finite.numel():,} values, the first{place}: {values[first].item()}"
