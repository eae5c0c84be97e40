"""Bytes, times, speeds and tables as people write them; and bytes on a device, by what they are for."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelab.errors import ConfigurationError

__all__ = [
    "DeviceMemory",
    "Limits",
    "ModelStates",
    "Speeds",
    "format_bytes",
    "format_time",
    "parse_bytes",
    "parse_limits",
    "parse_speeds",
    "render_table",
]

Limits = float | str | Sequence[float | str | None] | None
Speeds = Sequence[float] | None
_SIZES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZES |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def format_time(value: float, unit: str) -> str:
    """ "14 units", "0.253 s", "3.1 ms"."""
    if unit == "s":
        return f"{value * 1e3:.3g} ms" if value < 0.1 else f"{value:.3f} s"
    return f"{value:g} {unit}"


def format_bytes(value: float) -> str:
    """Decimal multiples: "19.1 MB"."""
    for size, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size:
            return f"{value / size:.1f} {name}"
    return f"{value:.0f} B"


def parse_limits(limit: Limits, devices: int, name: str = "memory_limit") -> tuple[float, ...]:
    """Bytes allowed on each device, from one size for all or one a device; infinite for None.

    Raises ConfigurationError for anything else.
    """
    if limit is None:
        return (math.inf,) * devices
    if isinstance(limit, str | bytes) or not isinstance(limit, Sequence):
        return (parse_bytes(limit, name),) * devices
    if len(limit) != devices:
        raise ConfigurationError(
            f"{name} is given for {len(limit)} devices, there are {devices}; give one, or {devices}"
        )
    return tuple(math.inf if entry is None or entry == math.inf else parse_bytes(entry, name) for entry in limit)


def parse_speeds(given: Any, devices: int) -> list[float]:
    """How fast devices are, against what is measured: one a device; none where all are as measured.

    Raises ConfigurationError for anything else.
    """
    if given is None or (isinstance(given, Sequence) and not len(given)):
        return []
    ones = [1] * devices
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ConfigurationError(f"speeds must be a list of {devices} numbers, one a device, got {given!r}; try {ones}")
    if len(given) != devices:
        raise ConfigurationError(
            f"speeds is given for {len(given)} devices, there are {devices}; give {devices}, such as {ones}, or None"
        )
    for r, speed in enumerate(given):
        number = isinstance(speed, int | float) and not isinstance(speed, bool)
        if not number or not speed > 0 or not math.isfinite(speed):
            raise ConfigurationError(
                f"the speed of device {r} must be a positive number, got {speed!r}; 1 is as measured, 0.5 half as fast"
            )
    return [] if all(speed == 1 for speed in given) else [float(speed) for speed in given]


def parse_bytes(text: Any, name: str = "a number of bytes") -> float:
    """Bytes from a number, or from text such as "150MB", "1.5 GB" (powers of ten) or "80GiB" (powers of two).

    Raises ConfigurationError for anything else.

    >>> parse_bytes("80GiB")
    85899345920.0
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        value, found = float(min(text, 10**18)), text != math.inf
    else:
        match = re.fullmatch(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*([KMGT]?i?B?)\s*", str(text), re.IGNORECASE)
        unit = match.group(2).upper() if match else "?"
        unit += "" if not unit or unit.endswith("B") else "B"
        found = match is not None and unit in _SIZES
        value = float(match.group(1)) * _SIZES[unit] if match and found else -1.0
    if not found or not value > 0:
        raise ConfigurationError(f"{name} must be positive bytes, such as 150MB, 1.5GB or 80GiB; got {text!r}")
    return value


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned, the first to the left, the others to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def draw(line: Sequence[str]) -> str:
        cells = [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        return "  ".join(cells).rstrip()

    return "\n".join([draw(lines[0]), "  ".join("-" * width for width in widths), *map(draw, lines[1:])])


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
