"""Nodes of equal devices, and the links inside a node and between nodes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from pipelab.errors import ConfigurationError, whole_number
from pipelab.quantities import parse_bytes
from pipelab.simulation.links import Link

__all__ = ["CLUSTERS", "Cluster"]


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """``nodes`` of ``per_node`` devices with ``memory`` bytes each. ``usable`` is the part of it that may be planned.

    A device has ``peak`` operations a second, of which large products of matrices reach ``reached``. Its memory moves
    ``memory_bandwidth`` bytes a second. ``inside`` and ``between`` are a device's links to others in its node and in
    other nodes, with the latency and the bandwidth that are reached, in seconds and bytes per second.
    Raises ConfigurationError for what is no cluster.
    """

    nodes: int
    per_node: int
    memory: float | str
    peak: float
    memory_bandwidth: float
    inside: Link
    between: Link
    reached: float = 0.65
    usable: float = 0.9

    def __post_init__(self) -> None:
        whole_number("nodes", "", self.nodes)
        whole_number("per_node", "", self.per_node)
        parse_bytes(self.memory, "memory")
        for name, most in (("peak", math.inf), ("memory_bandwidth", math.inf), ("reached", 1), ("usable", 1)):
            given = getattr(self, name)
            number = isinstance(given, int | float) and not isinstance(given, bool)
            if not number or not 0 < given <= most or not math.isfinite(given):
                allowed = "a positive number" if most == math.inf else "above 0 and at most 1"
                usual = CLUSTERS["a100"].get(name) or getattr(Cluster, name)
                raise ConfigurationError(f"{name} must be {allowed}, got {given!r}; try {usual:g}")
        for name in ("inside", "between"):
            if not isinstance(getattr(self, name), Link):
                raise ConfigurationError(
                    f"{name} must be a Link, got {getattr(self, name)!r}; try Link(latency=1e-5, bandwidth=20e9)"
                )

    @classmethod
    def of(cls, name: str, nodes: int = 1, **changed: object) -> Cluster:
        """Nodes of a kind that is known, such as ``Cluster.of("a100", 64)``; ``changed`` fields come on top.

        Raises ConfigurationError for another name.
        """
        if name not in CLUSTERS:
            known = ", ".join(CLUSTERS)
            raise ConfigurationError(f"there is no kind of cluster '{name}'; there is {known}; or give its numbers")
        return cls(nodes=nodes, **(CLUSTERS[name] | changed))

    @property
    def devices(self) -> int:
        """All of them."""
        return self.nodes * self.per_node

    @cached_property
    def allowed(self) -> float:
        """Bytes of a device that may be planned; the rest is for the framework and for fragments."""
        return parse_bytes(self.memory) * self.usable

    def holds(self, stride: int, size: int) -> bool:
        """Whether all groups of ``size`` devices, each ``stride`` after the one before, stay in a node."""
        return size == 1 or self.per_node % (stride * size) == 0

    def link(self, stride: int, size: int) -> Link:
        """What a device has to the others of a group of ``size`` devices, each ``stride`` after the one before.

        Devices are numbered node by node. A group that leaves its node has the latency between nodes. Its messages
        leave a node by the adapters of all its members there, and no faster than they go inside.
        """
        if self.holds(stride, size):
            return self.inside
        members = max(1, math.gcd(stride * size, self.per_node) // stride)  # of the group that has fewest there
        return self.adapters[members - 1]

    @cached_property
    def adapters(self) -> tuple[Link, ...]:
        """The link between nodes for 1, 2, ... members of a group in each of them."""
        latency, alone, most = self.between.latency, self.between.bandwidth, self.inside.bandwidth
        return tuple(Link(latency, min(most, n * alone)) for n in range(1, self.per_node + 1))


CLUSTERS: dict[str, dict] = {
    "a100": {
        "per_node": 8,
        "memory": "80GiB",
        "peak": 312e12,
        "memory_bandwidth": 2.0e12,
        "inside": Link(3e-6, 230e9),
        "between": Link(1e-5, 20e9),
    },
    "h100": {
        "per_node": 8,
        "memory": "80GiB",
        "peak": 989e12,
        "memory_bandwidth": 3.35e12,
        "inside": Link(3e-6, 360e9),
        "between": Link(1e-5, 40e9),
    },
}
"""Eight devices a node, joined by NVLink, each with an adapter of 200 or 400 Gb/s. A link reaches four fifths of it."""
