"""Run two things in turn, many times, and print how many times longer the first takes: drift of the machine cancels."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median


def ratio(first: Callable[[], object], second: Callable[[], object], rounds: int = 12) -> tuple[float, float, float]:
    """(lower quartile, median, upper quartile) of time(first) / time(second) over ``rounds`` alternating pairs."""
    first(), second()
    found = []
    for number in range(rounds):
        pair = [(first, 0), (second, 1)]
        if number % 2:
            pair.reverse()
        times = [0.0, 0.0]
        for work, place in pair:
            begun = time.perf_counter()
            work()
            times[place] = time.perf_counter() - begun
        found.append(times[0] / times[1])
    found.sort()
    return found[len(found) // 4], median(found), found[3 * len(found) // 4]


def show(what: str, found: tuple[float, float, float]) -> None:
    """One line."""
    low, middle, high = found
    print(f"{what:<72} {middle:5.2f}  ({low:.2f} .. {high:.2f})")
