"""The best contiguous cut into stages by dynamic programming: the largest weight of a stage is as small as can be."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from pipelab.schedules.reserved import reserved
from pipelab.schedules.table import Array

__all__ = ["Border", "Weight", "bottleneck", "bottleneck_in_any_order", "moved"]

Weight = Callable[[int, int], Array]
"""(stage, device) -> W, where W[i, j] is the weight of layers i to j - 1 there; infinite where they do not fit."""
Border = Callable[[int, int], Array]
"""(device, the next one) -> L, where L[i] is the weight of the link between them if layer i is the first behind it."""


@reserved
def bottleneck(weight: Weight, border: Border, devices: Sequence[int]) -> tuple[float, list[int]]:
    """(the least largest weight, the bounds 0, ..., layers), for stage s on ``devices[s]``; infinite if none fits.

    best(s, j) = min over i of max(best(s - 1, i), L(i), W(s, i, j)), the recurrence of PipeDream (arXiv 1806.03377,
    3.1) without replicas.
    """
    best: Array | None = None
    chosen: list[Array] = []
    for s, device in enumerate(devices):
        table = weight(s, device)
        if best is None:
            best = np.where(np.arange(len(table)) > 0, table[0], math.inf)
            chosen.append(np.zeros(len(table), np.int64))
            continue
        worst = np.maximum(np.maximum(best, border(devices[s - 1], device))[:, None], table)
        chosen.append(worst.argmin(0))
        best = worst.min(0)
    assert best is not None
    bounds = [len(best) - 1]
    for came in reversed(chosen):
        bounds.append(int(came[bounds[-1]]))
    return float(best[-1]), bounds[::-1]


@reserved
def bottleneck_in_any_order(weight: Weight, border: Border, devices: int) -> tuple[float, list[int], list[int]]:
    """(the least largest weight, bounds, the device of each stage), over all orders.

    A table over sets of devices and which of them is the last. It takes time and memory like 2^devices, and ``devices``
    times the square of the layers.
    """
    tables = [[weight(s, r) for r in range(devices)] for s in range(devices)]
    borders = [[border(q, r) for r in range(devices)] for q in range(devices)]
    size = len(tables[0][0])
    best: dict[tuple[int, int], Array] = {}
    came: dict[tuple[int, int], tuple[Array, Array]] = {}
    for chosen in sorted(range(1, 1 << devices), key=int.bit_count):
        members = [r for r in range(devices) if chosen >> r & 1]
        for r in members:
            before, rest = [q for q in members if q != r], chosen & ~(1 << r)
            ways = np.array([np.maximum(best[rest, q], borders[q][r]) for q in before])
            if not before:
                before, ways = [r], np.where(np.arange(size) == 0, 0.0, math.inf)[None]
            worst = np.maximum(ways.min(0)[:, None], tables[len(members) - 1][r])
            start = worst.argmin(0)
            best[chosen, r], came[chosen, r] = worst.min(0), (np.array(before)[ways.argmin(0)][start], start)
    left = (1 << devices) - 1
    last = min(range(devices), key=lambda r: best[left, r][-1])
    least, bounds, order = float(best[left, last][-1]), [size - 1], []
    if least == math.inf:
        return least, [], []
    while left:
        order.append(last)
        who, start = (found[bounds[-1]] for found in came[left, last])
        left, last = left & ~(1 << last), int(who)
        bounds.append(int(start))
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
