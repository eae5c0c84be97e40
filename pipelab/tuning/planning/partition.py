"""The best contiguous cut into stages by dynamic programming: the largest weight of a stage is as small as can be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from pipelab.schedules.table import Array

__all__ = ["Weight", "bottleneck", "bottleneck_in_any_order", "moved"]

Weight = Callable[[int, int], Array]
"""(stage, device) -> W, where W[i, j] is the weight of layers i to j - 1 there; infinite where they do not fit."""


def bottleneck(weight: Weight, devices: Sequence[int]) -> tuple[float, list[int]]:
    """(the least largest weight, the bounds 0, ..., layers), for stage s on ``devices[s]``; infinite if none fits.

    best(s, j) = min over i of max(best(s - 1, i), W(s, i, j)), the recurrence of PipeDream (arXiv 1806.03377, 3.1)
    without replicas.
    """
    best: Array | None = None
    chosen: list[Array] = []
    for s, device in enumerate(devices):
        table = weight(s, device)
        if best is None:
            best = np.where(np.arange(len(table)) > 0, table[0], math.inf)
            chosen.append(np.zeros(len(table), np.int64))
            continue
        worst = np.maximum(best[:, None], table)
        chosen.append(worst.argmin(0))
        best = worst.min(0)
    assert best is not None
    bounds = [len(best) - 1]
    for came in reversed(chosen):
        bounds.append(int(came[bounds[-1]]))
    return float(best[-1]), bounds[::-1]


def bottleneck_in_any_order(weight: Weight, devices: int) -> tuple[float, list[int], list[int]]:
    """(the least largest weight, bounds, the device of each stage), over all orders: a table over sets of devices.

    It takes time and memory like 2^devices, and ``devices`` times the square of the layers.
    """
    tables = [[weight(s, r) for r in range(devices)] for s in range(devices)]
    size = len(tables[0][0])
    best: dict[int, Array] = {0: np.where(np.arange(size) == 0, 0.0, math.inf)}
    came: dict[int, tuple[Array, Array]] = {}
    for chosen in sorted(range(1, 1 << devices), key=int.bit_count):
        s, found = chosen.bit_count() - 1, np.full(size, math.inf)
        last, start = np.zeros(size, np.int64), np.zeros(size, np.int64)
        for r in range(devices):
            if not chosen >> r & 1:
                continue
            worst = np.maximum(best[chosen & ~(1 << r)][:, None], tables[s][r])
            least = worst.min(0)
            better = least < found
            found = np.where(better, least, found)
            last, start = np.where(better, r, last), np.where(better, worst.argmin(0), start)
        best[chosen], came[chosen] = found, (last, start)
    left, bounds, order = (1 << devices) - 1, [size - 1], []
    least = float(best[left][-1])
    if least == math.inf:
        return least, [], []
    while left:
        last, start = came[left]
        order.append(int(last[bounds[-1]]))
        bounds.append(int(start[bounds[-1]]))
        left &= ~(1 << order[-1])
    return least, bounds[::-1], order[::-1]


def moved(bounds: Sequence[int]) -> list[list[int]]:
    """The neighbours of a cut: one bound, or two that follow one another, a little to the left or right."""
    found = []
    inner = range(1, len(bounds) - 1)
    for width in (1, 2):
        for k in inner[: len(inner) - width + 1]:
            for step in (-1, 1, -3, 3):
                new = list(bounds)
                for at in range(k, k + width):
                    new[at] += step
                if all(a < b for a, b in pairwise(new)):
                    found.append(new)
    return found
