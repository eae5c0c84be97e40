"""How fast devices are, relative to one another: to try, on devices that are alike, what unlike ones would do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pipelab.errors import ConfigurationError

__all__ = ["Speeds", "parse_speeds"]

Speeds = Sequence[float] | None


def parse_speeds(given: Any, devices: int) -> list[float]:
    """One a device; none where all are as measured. Raises ConfigurationError."""
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
