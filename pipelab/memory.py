"""Bytes on a device, by what they are for."""

from __future__ import annotations

from dataclasses import dataclass

from pipelab.quantities import format_bytes

__all__ = ["DeviceMemory", "ModelStates"]


@dataclass(frozen=True, slots=True)
class ModelStates:
    """Bytes that stay on a device from step to step: "model states" in the ZeRO paper (arXiv 1910.02054, 3.1)."""

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

    def __add__(self, other: ModelStates) -> ModelStates:
        return ModelStates(
            self.weights + other.weights, self.gradients + other.gradients, self.optimizer + other.optimizer
        )


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes on one device in a step: what stays, and activations at their peak."""

    model_states: ModelStates
    activations: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.model_states.total + self.activations

    def __str__(self) -> str:
        return f"{self.model_states}, activations {format_bytes(self.activations)}"
