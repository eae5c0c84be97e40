"""The unsplit model as oracle: its loss and gradients on the whole batch, to compare a pipeline's with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.errors import ConfigurationError
from pipelab.models.cut import call_layer
from pipelab.models.dropout import dropout_key
from pipelab.models.split import SplitModel

__all__ = ["Chain", "Reference", "buffers_kept", "gradient_error", "moved", "reference_of", "unsplit_gradients"]


@dataclass(frozen=True)
class Reference:
    """Loss and gradients of the unsplit model."""

    loss: float
    gradients: Mapping[str, Tensor]


def unsplit_gradients(
    model: nn.Module | SplitModel,
    loss: Callable[[Any, Any], Tensor],
    inputs: Any,
    targets: Any,
    *,
    seed: int = 0,
    step: int = 0,
) -> Reference:
    """Run ``model``, also one that was split, in one piece on the whole batch. Its ``.grad`` fields stay as they are.

    A loss that has parameters gives their gradients, too, as ``loss.NAME``. ``seed`` and ``step`` key the dropout, as
    in a Pipeline with that seed at its step number ``step``.
    """
    call: Callable[[Any], Any] = model if isinstance(model, SplitModel) else partial(call_layer, model)
    module = model.model if isinstance(model, SplitModel) else model
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if isinstance(loss, nn.Module):
        named |= {f"loss.{name}": p for name, p in loss.named_parameters() if p.requires_grad}
    return reference_of(call, loss, inputs, targets, named, seed=seed, step=step)


@contextmanager
def buffers_kept(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Afterwards the buffers of ``modules`` and of all in them are the tensors they were, with their values."""
    holders = [inner for module in modules for inner in module.modules()]
    kept = [(m, name, b, b.clone()) for m in holders for name, b in m._buffers.items() if b is not None]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, before in kept:  # a forward may have put another tensor in its place
                module._buffers[name] = buffer.copy_(before)


def moved(values: Iterable[Any], place: torch.device) -> tuple[Any, ...]:
    """Inputs and targets, tensors or tuples of them, on ``place``."""
    return tuple(v.to(place) if isinstance(v, Tensor) else tuple(tensor.to(place) for tensor in v) for v in values)


class Chain:
    """Stages in a row, each on its own device, called as one model."""

    def __init__(self, stages: Sequence[nn.Module], device: torch.device) -> None:
        self.stages, self.device = stages, device

    def __call__(self, x: Any) -> Any:
        """The whole batch through all stages."""
        for stage in self.stages:
            self.device = next((p.device for p in stage.parameters()), self.device)
            x = x.to(self.device) if isinstance(x, Tensor) else tuple(tensor.to(self.device) for tensor in x)
            x = call_layer(stage, x)
        return x


def reference_of(
    model: Callable[[Any], Any],
    loss: Callable[[Any, Any], Tensor],
    inputs: Any,
    targets: Any,
    parameters: Mapping[str, nn.Parameter],
    *,
    seed: int,
    step: int,
) -> Reference:
    """Loss and gradients of ``parameters`` on the whole batch; a model that works in place spoils no ``inputs``."""
    copied = inputs.clone() if isinstance(inputs, Tensor) else tuple(tensor.clone() for tensor in inputs)
    with torch.enable_grad(), dropout_key(seed, step):
        output = model(copied)
        home = (output if isinstance(output, Tensor) else output[0]).device
        placed = targets.to(home) if isinstance(targets, Tensor) else tuple(tensor.to(home) for tensor in targets)
        value = loss(output, placed)
        grads = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
    named = zip(parameters.items(), grads, strict=True)
    return Reference(float(value.detach()), {n: torch.zeros_like(p) if g is None else g for (n, p), g in named})


def gradient_error(gradients: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> float:
    """max |g - g*| / max |g*| over the whole model. (Per tensor it would be meaningless: some true gradients are 0.)

    Raises ConfigurationError if the two do not hold the same parameters.
    """
    if set(gradients) != set(reference):
        odd = sorted(set(gradients) ^ set(reference))
        raise ConfigurationError(f"gradients of different parameters cannot be compared: {', '.join(odd[:4])}")
    worst = largest = 0.0
    for name, truth in reference.items():
        if not truth.numel():
            continue
        found, true = (grad if grad.layout == torch.strided else grad.to_dense() for grad in (gradients[name], truth))
        worst = max(worst, float((found.to(true.device, true.dtype) - true).abs().max()))
        largest = max(largest, float(true.abs().max()))
    return worst / largest if largest else worst
