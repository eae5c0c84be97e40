"""A line through what was measured: t(b) = alpha + beta * b."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pipelab.errors import ConfigurationError

__all__ = ["Line", "fit_line"]


@dataclass(frozen=True)
class Line:
    """``alpha + beta * x``, and how far it is from the points it was fitted to."""

    alpha: float
    """The fixed part, which does not depend on x: seconds of launching, or bytes."""
    beta: float
    """What each further unit of x adds."""
    error: float = 0.0
    """The largest |line / point - 1|."""
    points: tuple[tuple[float, float], ...] = ()

    def __call__(self, x: float) -> float:
        """The line at ``x``."""
        return self.alpha + self.beta * x

    def __add__(self, other: Line) -> Line:
        points: tuple[tuple[float, float], ...] = ()
        if [x for x, _ in self.points] == [x for x, _ in other.points]:
            points = tuple((x, y + z) for (x, y), (_, z) in zip(self.points, other.points, strict=True))
        alpha, beta = self.alpha + other.alpha, self.beta + other.beta
        return Line(alpha, beta, _error(alpha, beta, points), points)


def fit_line(points: Iterable[tuple[float, float]]) -> Line:
    """The line whose relative error is least in squares: sum of ((alpha + beta * x) / y - 1)**2.

    In this way small micro-batches count as much as large ones. Neither alpha nor beta is negative, because no time is
    below zero. Points at y = 0 do not count. Raises ConfigurationError without two different x.

    >>> fit_line([(1, 3.0), (2, 5.0), (4, 9.0)]).alpha
    1.0
    """
    found = tuple((float(x), float(y)) for x, y in points)
    if not any(y > 0 for _, y in found):
        return Line(0.0, 0.0, 0.0, found)
    places = sorted({x for x, _ in found})
    if len(places) < 2:
        raise ConfigurationError(f"a line needs points at two or more different x, got {places}")
    rows = [(1 / y**2, x, y) for x, y in found if y > 0]  # weight, x, y
    w, wx, wy = (sum(part) for part in zip(*((r, r * x, r * y) for r, x, y in rows), strict=True))
    wxx, wxy = (sum(part) for part in zip(*((r * x * x, r * x * y) for r, x, y in rows), strict=True))
    if len({x for _, x, _ in rows}) > 1:
        determinant = w * wxx - wx * wx
        beta = (w * wxy - wx * wy) / determinant
        alpha = (wy - beta * wx) / w
    else:  # only one x has a y above 0
        alpha, beta = 0.0, wxy / wxx
    if alpha < 0:
        alpha, beta = 0.0, wxy / wxx
    if beta < 0:
        alpha, beta = wy / w, 0.0
    return Line(alpha, beta, _error(alpha, beta, found), found)


def _error(alpha: float, beta: float, points: tuple[tuple[float, float], ...]) -> float:
    return max((abs((alpha + beta * x) / y - 1) for x, y in points if y > 0), default=0.0)
