"""WHEN it would run: costs, and an event-driven simulation of a schedule."""

from pipelab.simulation.costs import CostModel, Costs, MemoryModel, SlotCosts
from pipelab.simulation.simulate import simulate

__all__ = ["CostModel", "Costs", "MemoryModel", "SlotCosts", "simulate"]
