"""One schedule on all settings of the leaderboard."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean

__all__ = ["Standing"]


@dataclass(frozen=True)
class Standing:
    """One schedule on all settings: ``times`` are as fractions of 1F1B's."""

    name: str
    own: bool
    times: tuple[float, ...]
    held: float
    messages: int

    @property
    def time(self) -> float:
        """The mean of ``times``."""
        return mean(self.times)

    def beaten_by(self, other: Standing) -> bool:
        """Whether ``other`` is as good in time and in memory, and better in one of them."""
        mine, theirs = (self.time, self.held), (other.time, other.held)
        return theirs != mine and all(b <= a + 1e-9 for a, b in zip(mine, theirs, strict=True))
