"""Times things in turn: whatever else the machine does meanwhile falls on all of them, and the ratios stay."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

Block = Callable[[int], Sequence[float]]
"""Runs that many steps and returns the seconds of each."""


@dataclass(frozen=True)
class Spread:
    """A median between its quartiles."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        rising = sorted(values)
        return cls(rising[len(rising) // 4], median(rising), rising[3 * len(rising) // 4])

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.low:.2f} .. {self.high:.2f})"


def steps(work: Callable[[], object]) -> Block:
    """Makes a block of something that is called once a step."""

    def block(count: int) -> list[float]:
        times = [time.perf_counter()]
        for _ in range(count):
            work()
            times.append(time.perf_counter())
        return [b - a for a, b in itertools.pairwise(times)]

    return block


def in_turn(
    contenders: Mapping[str, Block], rounds: int = 7, seconds: float = 0.4, least: int = 2
) -> dict[str, list[float]]:
    """The median step of each contender's block, one entry a round.

    A block takes about ``seconds`` and has ``least`` to 50 steps. Each round starts with another contender and each
    second one goes backwards, so that nobody always follows the same one.
    """
    counts = {}
    for name, block in contenders.items():
        block(1)
        counts[name] = max(least, min(50, round(seconds / median(block(2)))))
    names, found = list(contenders), {name: [] for name in contenders}
    for number in range(rounds):
        turned = names[number % len(names) :] + names[: number % len(names)]
        for name in turned if number % 2 == 0 else turned[::-1]:
            found[name].append(median(contenders[name](counts[name])))
    return found


def ratios(found: Mapping[str, Sequence[float]], to: str) -> dict[str, Spread]:
    """Each contender's times over those of ``to`` in the same round."""
    return {
        name: Spread.of([a / b for a, b in zip(times, found[to], strict=True)])
        for name, times in found.items()
        if name != to
    }
