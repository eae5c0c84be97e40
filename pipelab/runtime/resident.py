"""What a device holds besides activations: weights, their gradients, and what the optimizer remembers."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipelab.quantities import format_bytes

__all__ = ["DeviceMemory", "Resident", "read_resident", "rehearse_update"]


@dataclass(frozen=True, slots=True)
class Resident:
    """Bytes that stay on a device from step to step."""

    weights: int = 0
    """Parameters and buffers."""
    gradients: int = 0
    optimizer: int = 0
    """The optimizer's state: for Adam two tensors as large as the weights."""

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.optimizer

    def __str__(self) -> str:
        parts = (("weights", self.weights), ("gradients", self.gradients), ("optimizer state", self.optimizer))
        return ", ".join(f"{name} {format_bytes(size)}" for name, size in parts)


@dataclass(frozen=True, slots=True)
class DeviceMemory(Resident):
    """Bytes on one device, activations at their peak."""

    activations: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def __str__(self) -> str:
        return f"{Resident.__str__(self)}, activations {format_bytes(self.activations)}"


def read_resident(
    modules: Iterable[nn.Module], optimizers: Iterable[torch.optim.Optimizer], *, planned: bool = False
) -> Resident:
    """What these stages hold. ``planned``: also the gradients and the optimizer state that a training step will add."""
    modules, optimizers = list(modules), list(optimizers)
    parameters = [p for module in modules for p in module.parameters()]
    weights = _bytes([*parameters, *(b for module in modules for b in module.buffers())])
    if planned:
        gradients = _bytes(p for p in parameters if p.requires_grad)
    else:
        gradients = _bytes(p.grad for p in parameters if p.grad is not None)
    state = 0
    for made in optimizers:
        found = state_bytes(made)
        state += rehearse_update(made, on_device=False) if planned and not made.state else found
    return Resident(weights, gradients, state)


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of an optimizer's state."""
    return _bytes(value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor))


def rehearse_update(optimizer: torch.optim.Optimizer, *, on_device: bool = True) -> int:
    """Bytes of state that ``optimizer`` has after a step, from a step of a copy of it; nothing of its own is touched.

    Without ``on_device`` the copy's tensors have shapes but no memory, where the optimizer can work with such.
    """
    if not on_device:
        try:
            return state_bytes(_stepped(optimizer, "meta"))
        except Exception:  # noqa: BLE001 (fused ones, and those that read their tensors, need real ones)
            pass
    return state_bytes(_stepped(optimizer, None))


def _stepped(optimizer: torch.optim.Optimizer, device: str | None) -> torch.optim.Optimizer:
    parameters: Sequence[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
    copies = [nn.Parameter(torch.empty_like(p, device=device) if device else p.detach().clone()) for p in parameters]
    memo = {id(p): made for p, made in zip(parameters, copies, strict=True)}
    made: torch.optim.Optimizer = copy.deepcopy(optimizer, memo)
    for parameter in copies:
        parameter.grad = torch.empty_like(parameter) if device else torch.zeros_like(parameter)
    made.step()
    return made


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors; those that share memory, as tied weights do, count once."""
    seen = {}
    for tensor in list(tensors):
        address = tensor.data_ptr() if tensor.layout == torch.strided else 0
        seen[address or id(tensor)] = tensor.element_size() * tensor.numel()
    return sum(seen.values())
