"""A figure against one setting. It is computed a few points at a time, so that nothing waits for it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

from pipelab.errors import ConfigurationError, PipelabError
from pipelab.teaching.explorer.figures import FIGURES, over_limit, value_of
from pipelab.teaching.explorer.settings import CONTROLS, Settings

__all__ = ["AGAINST", "Curve", "Curves"]

AGAINST = ("microbatches", "devices", "chunks", "warmup", "latency", "overhead", "batch")
_MOST = 16  # points of a curve


@dataclass
class Curve:
    """``figure`` at each place of ``against``; None if it is not known yet, or if there is no such schedule.

    ``over``: the places at which a device's activations are over the settings' limit.
    """

    figure: str
    against: str
    places: tuple[float, ...]
    values: dict[float, float | None] = field(default_factory=dict)
    over: set[float] = field(default_factory=set)

    @property
    def done(self) -> bool:
        """Whether all places are known."""
        return len(self.values) == len(self.places)


class Curves:
    """Curves around one state of the settings. Computed points are kept."""

    def __init__(self, most: int = 60) -> None:
        self._known: dict[tuple[Settings, str, str], Curve] = {}
        self._most = most

    def curve(self, settings: Settings, figure: str, against: str) -> Curve:
        """The curve, as far as it is known. Raises ConfigurationError for an unknown figure or setting."""
        if figure not in FIGURES:
            raise ConfigurationError(f"there is no figure '{figure}'; the figures are {', '.join(FIGURES)}")
        if against not in AGAINST:
            raise ConfigurationError(f"a curve goes against one of {', '.join(AGAINST)}, not '{against}'")
        key = (_at(settings, against, CONTROLS[against].low), figure, against)
        if key not in self._known:
            while len(self._known) >= self._most:
                del self._known[next(iter(self._known))]
            self._known[key] = Curve(figure, against, _places(settings, against))
        return self._known[key]

    def work(self, settings: Settings, curve: Curve, seconds: float) -> None:
        """Compute points of ``curve`` for about ``seconds``, beginning with the nearest to the present one."""
        began = time.perf_counter()
        now = getattr(settings, curve.against)
        for place in sorted(curve.places, key=lambda x: abs(x - now)):
            if place in curve.values:
                continue
            curve.values[place], over = _point(curve.figure, _at(settings, curve.against, place))
            if over:
                curve.over.add(place)
            if time.perf_counter() - began > seconds:
                return


def _at(settings: Settings, against: str, place: float) -> Settings:
    """The settings with ``against`` at ``place``, alone."""
    turned: dict[str, Any] = {against: round(place) if CONTROLS[against].kind == "whole" else place}
    return replace(settings, compare="", **turned)


def _point(figure: str, settings: Settings) -> tuple[float | None, bool]:
    """The figure, and whether a device's activations are over the limit."""
    try:
        timeline = settings.timeline()
        return value_of(figure, settings, timeline), bool(over_limit(settings, timeline))
    except PipelabError:
        return None, False


def _places(settings: Settings, against: str) -> tuple[float, ...]:
    """Where a curve is computed: small numbers close together, larger ones further apart."""
    one = CONTROLS[against]
    if one.kind == "number":
        most = {"latency": 2.0, "overhead": 1.0}[against]
        return tuple(round(most * k / 16, 4) for k in range(17))
    if against == "warmup":
        return tuple(range(-max(settings.devices - 1, 1), 4))
    if against == "microbatches" and settings.schedule in ("interleaved", "interleaved-zb", "chimera"):
        p = settings.devices  # its multiples make groups of p, for which the formulas are
        every = max(1, -(-_MOST_M // (p * _MOST)))
        return tuple(range(p, max(_MOST_M, 2 * p) + 1, p * every))
    return _WHOLE[against]


_MOST_M = 64
_WHOLE: dict[str, tuple[float, ...]] = {
    "microbatches": (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 32, 40, 48, 64),
    "devices": tuple(range(1, 17)),
    "chunks": tuple(range(1, 9)),
    "batch": (4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256),
}
