"""Reads what a device holds besides activations: weights, their gradients, and what the optimizer remembers."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from statistics import median

import torch
from torch import Tensor, nn

from pipelab.models.shards import parts_of
from pipelab.quantities import ModelStates
from pipelab.runtime.device.clocks import SlotMeter

__all__ = ["Planner", "read_model_states", "rehearse_update"]

Optimizers = Iterable[torch.optim.Optimizer]


def read_model_states(modules: Iterable[nn.Module], optimizers: Optimizers) -> ModelStates:
    """What these stages hold now."""
    modules = list(modules)
    parameters = [p for module in modules for p in module.parameters()]
    weights = _bytes([*parameters, *(b for module in modules for b in module.buffers())])
    gradients = _bytes(p.grad for p in parameters if p.grad is not None)
    return ModelStates(weights, gradients, sum(map(_state_bytes, optimizers)))


class Planner:
    """What stages will hold: with the gradients and the optimizer state that a training step adds."""

    def __init__(self) -> None:
        self._states: dict[int, int] = {}

    def plan(self, modules: Iterable[nn.Module], optimizers: Optimizers) -> ModelStates:
        """An optimizer without state is rehearsed, once."""
        modules, optimizers = list(modules), list(optimizers)
        parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        state = 0
        for made in optimizers:
            if not made.state and id(made) not in self._states:
                self._states[id(made)] = _planned_state(made)
            state += _state_bytes(made) if made.state else self._states[id(made)]
        return ModelStates(read_model_states(modules, ()).weights, _bytes(parameters), state)


def rehearse_update(optimizer: torch.optim.Optimizer, meter: SlotMeter, times: int = 5) -> float:
    """Seconds of an update (the median of ``times``) of a copy of ``optimizer``, parameters and all.

    0 where there is no room for the copy, or the optimizer cannot step gradients of zeros.
    """
    try:
        made = _copied(optimizer, None)
        made.step()  # makes its state
    except Exception:  # noqa: BLE001 (anything may come out of a foreign optimizer)
        return 0.0
    for _ in range(times):
        meter.begin()
        try:
            made.step()
        finally:
            meter.end()
    return float(median(meter.readings().cost))


def _planned_state(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of state that ``optimizer`` will have after its first step, from a step of a copy.

    The copy's tensors have shapes but no memory, where the optimizer can work with such. Where it cannot be stepped so
    at all (one for sparse gradients), its state counts from the first step on.
    """
    for device in ("meta", None):
        try:
            made = _copied(optimizer, device)
            made.step()
            return _state_bytes(made)
        except Exception:  # noqa: BLE001 (fused ones, and those that read their tensors, need real ones)
            continue
    return 0


def _state_bytes(optimizer: torch.optim.Optimizer) -> int:
    return _bytes(value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor))


def _copied(optimizer: torch.optim.Optimizer, device: str | None) -> torch.optim.Optimizer:
    """A copy that steps copies of the parameters, with gradients of zero."""
    parameters: Sequence[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
    copies = [nn.Parameter(torch.empty_like(p, device=device) if device else p.detach().clone()) for p in parameters]
    memo = {id(p): made for p, made in zip(parameters, copies, strict=True)}
    made: torch.optim.Optimizer = copy.deepcopy(optimizer, memo)
    for parameter in copies:
        parameter.grad = torch.empty_like(parameter) if device else torch.zeros_like(parameter)
    return made


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of what is here of tensors; those that share memory, as tied weights do, count once."""
    seen = {}
    for part in [part for tensor in list(tensors) for part in parts_of(tensor)]:
        address = part.data_ptr() if part.layout == torch.strided else 0
        seen[address or id(part)] = part.element_size() * part.numel()
    return sum(seen.values())
