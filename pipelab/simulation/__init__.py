"""WHEN it would run: costs, and an event-driven simulation of a schedule."""

from pipelab.simulation.costs import CostModel, Costs, MemoryModel, SlotCosts
from pipelab.simulation.simulate import peak_activation_bytes, simulate

__all__ = ["CostModel", "Costs", "MemoryModel", "SlotCosts", "peak_activation_bytes", "simulate"]
