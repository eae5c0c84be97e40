"""WHEN it would run: costs, and an event-driven simulation of a schedule."""

from pipelab.simulation.costs import CostModel, Costs, CostsByKind, MemoryModel, SlotCosts
from pipelab.simulation.links import Link, Links
from pipelab.simulation.simulate import peak_activation_bytes, simulate, sweep

__all__ = [
    "CostModel",
    "Costs",
    "CostsByKind",
    "Link",
    "Links",
    "MemoryModel",
    "SlotCosts",
    "peak_activation_bytes",
    "simulate",
    "sweep",
]
