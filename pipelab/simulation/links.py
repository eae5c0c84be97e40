"""What a message takes from one device to another: one link for all pairs of devices, or a link of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from numbers import Real
from typing import Any

from pipelab.errors import ConfigurationError, whole_number
from pipelab.quantities import format_bytes, format_time

__all__ = ["COMPRESSIONS", "INSTANT", "Link", "Links", "links_of"]

COMPRESSIONS = {"bf16": 1 / 2, "int8": 1 / 4}
"""By name, the part of a float32's bytes that travels."""


@dataclass(frozen=True)
class Link:
    """A message takes ``latency + bytes / bandwidth``, in the unit of the costs and in bytes per that unit.

    ``compression``: a Pipeline packs floating-point activations that take a gradient, and gradients, for this link, and
    unpacks them behind it. What takes no gradient may be a mask or a position, and travels as it is. With "bf16"
    (bfloat16) an element is off by 2^-8 of itself at most. With "int8" it is a byte, and each row of the last dimension
    has a scale. Then it is off by 1/254 of the row's largest at most. Tensors that would not get smaller travel as they
    are. A prediction takes half of a message's bytes with "bf16", a quarter with "int8": float32, without the scales.
    Raises ConfigurationError for a latency below 0, a bandwidth that is not positive, and another compression.
    """

    latency: float = 0.0
    bandwidth: float = math.inf
    compression: str | None = None

    def __post_init__(self) -> None:
        for name in ("latency", "bandwidth"):
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, Real):
                raise ConfigurationError(f"{name} must be a number, got {given!r}; leave it out for none")
        if not self.latency >= 0 or not math.isfinite(self.latency):
            raise ConfigurationError(f"latency must be finite and not negative, got {self.latency!r}; try 0")
        if not self.bandwidth > 0:
            raise ConfigurationError(f"bandwidth must be positive, got {self.bandwidth!r}; leave it out for no limit")
        if self.compression is not None and self.compression not in COMPRESSIONS:
            allowed = " or ".join(map(repr, COMPRESSIONS))
            raise ConfigurationError(
                f"compression must be {allowed}, got {self.compression!r}; leave it out to send tensors as they are"
            )

    @property
    def packing(self) -> float:
        """The part of a message's bytes that is predicted to travel."""
        return 1.0 if self.compression is None else COMPRESSIONS[self.compression]

    def time(self, size: float) -> float:
        """What a message of ``size`` bytes, before packing, takes on a channel that is free."""
        return self.latency + self.packing * size / self.bandwidth

    def after(self, other: Link) -> Link:
        """For messages that go by ``other`` first."""
        slow = 1 / other.bandwidth + 1 / self.bandwidth
        return replace(self, latency=other.latency + self.latency, bandwidth=1 / slow if slow else math.inf)

    def __str__(self) -> str:
        """Of costs in seconds: "0.05 ms a message, 3.1 GB per second"."""
        rate = "" if math.isinf(self.bandwidth) else f", {format_bytes(self.bandwidth)} per second"
        return f"{format_time(self.latency, 's')} a message{rate}"

    def to_json(self) -> dict[str, float | None]:
        """Plain data."""
        return {"latency": self.latency, "bandwidth": None if math.isinf(self.bandwidth) else self.bandwidth}

    @property
    def takes_time(self) -> bool:
        """Whether a message is not there at once."""
        return self.latency > 0 or self.bandwidth < math.inf


@dataclass(frozen=True)
class Links:
    """The link between each pair of devices.

    ``latency``, ``bandwidth`` and ``compression`` are those of all pairs that have no other. ``pairs`` has links of
    their own, such as ``{(0, 1): Link(latency=2)}``. It is the link of both directions, unless ``(1, 0)`` is there too.
    With ``per_node`` device r is on node r // per_node, and ``between`` is the link of devices on different nodes (see
    :meth:`nodes`).
    Raises ConfigurationError for what is no link or no pair.
    """

    latency: float = 0.0
    bandwidth: float = math.inf
    pairs: Mapping[tuple[int, int], Link] = field(default_factory=dict)
    per_node: int | None = None
    between: Link | None = None
    compression: str | None = None

    def __post_init__(self) -> None:
        _ = self.usual  # checks it
        if self.per_node is not None:
            whole_number("per_node", "", self.per_node)
        if not isinstance(self.pairs, Mapping):
            raise ConfigurationError(
                f"pairs must say which Link each pair has, got {type(self.pairs).__name__}; try "
                "{(0, 1): Link(latency=2)}"
            )
        for pair, link in self.pairs.items():
            if not (isinstance(pair, tuple) and len(pair) == 2 and pair[0] != pair[1] and _are_devices(pair)):
                raise ConfigurationError(f"a pair is two different devices, got {pair!r}; try (0, 1)")
            if not isinstance(link, Link):
                raise ConfigurationError(f"pair {pair} must have a Link, got {link!r}; try Link(latency=2)")

    @classmethod
    def nodes(cls, per_node: int, *, inside: Link, between: Link) -> Links:
        """Nodes of ``per_node`` devices each, in order: one link ``inside`` a node, another ``between`` nodes.

        >>> Links.nodes(8, inside=Link(2e-6, 300e9), between=Link(1e-5, 25e9)).of(7, 8).latency
        1e-05
        """
        return cls(inside.latency, inside.bandwidth, per_node=per_node, between=between, compression=inside.compression)

    @classmethod
    def either(cls, latency: float, bandwidth: float, links: Links | None) -> Links:
        """``links``, or one link for all. Raises ConfigurationError where both are given."""
        if links is None:
            return cls(latency, bandwidth)
        if not isinstance(links, Links):
            raise ConfigurationError(f"links must be Links, got {type(links).__name__}; try Links(latency=2)")
        if latency != 0 or bandwidth != math.inf:
            raise ConfigurationError(
                "links= says what each pair of devices has, so latency= and bandwidth= have nothing left to say; leave "
                "them out, or give them to Links"
            )
        return links

    @property
    def usual(self) -> Link:
        """Of pairs that have no other."""
        return Link(self.latency, self.bandwidth, self.compression)

    @property
    def uniform(self) -> bool:
        """Whether all pairs have the usual one."""
        return not self.pairs and self.per_node is None

    @property
    def take_time(self) -> bool:
        """Whether a message is not there at once, on any of them."""
        return any(link.takes_time for link in (self.usual, self.between or self.usual, *self.pairs.values()))

    def of(self, source: int, destination: int) -> Link:
        """What messages from one device to another take."""
        for pair in ((source, destination), (destination, source)):
            if pair in self.pairs:
                return self.pairs[pair]
        n = self.per_node
        apart = n is not None and source // n != destination // n
        return self.between if apart and self.between is not None else self.usual

    def after(self, other: Link) -> Links:
        """For messages that go by ``other`` first, whatever their devices."""
        return self._each(lambda link: link.after(other))

    @property
    def untimed(self) -> Links:
        """The same compression, and messages that take no time."""
        return self._each(lambda link: Link(compression=link.compression))

    @property
    def unpacked(self) -> Links:
        """The same times without compression: for bytes that were measured on their way."""
        return self._each(lambda link: replace(link, compression=None))

    def _each(self, change: Callable[[Link], Link]) -> Links:
        usual, between = change(self.usual), None if self.between is None else change(self.between)
        pairs = {pair: change(link) for pair, link in self.pairs.items()}
        return replace(
            self,
            latency=usual.latency,
            bandwidth=usual.bandwidth,
            pairs=pairs,
            between=between,
            compression=usual.compression,
        )

    def placed(self, order: Sequence[int]) -> Links:
        """Between the places of a pipeline, where device ``order[r]`` stands at place r."""
        places = permutations(range(len(order)), 2)
        pairs = {} if self.uniform else {(a, b): self.of(order[a], order[b]) for a, b in places}
        return Links(self.latency, self.bandwidth, pairs, compression=self.compression)

    def require(self, devices: int) -> None:
        """Raises ConfigurationError if a pair has a device that is none of them."""
        for pair in self.pairs:
            if max(pair) >= devices:
                raise ConfigurationError(
                    f"links has a link for devices {pair[0]} and {pair[1]}, but there are {devices} devices, "
                    f"0 to {devices - 1}; leave that pair out"
                )


INSTANT = Links()
"""Messages take no time."""


def links_of(costs: Any) -> Links:
    """The links of a cost model: its ``links`` where it has them, else the one of its latency and bandwidth."""
    given: Links | None = getattr(costs, "links", None)
    return Links(costs.latency, costs.bandwidth) if given is None else given


def _are_devices(pair: tuple[Any, ...]) -> bool:
    return all(isinstance(r, int) and not isinstance(r, bool) and r >= 0 for r in pair)
