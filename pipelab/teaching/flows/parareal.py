"""Parareal: a diffusion equation solved in parallel in time (Lions, Maday, Turinici 2001).

Time is cut into slices. A cheap solver G runs ahead and guesses the state at the beginning of each slice. An exact one,
F, starts from all guesses at once. Then G runs again, and each state is corrected by what F knew better::

    U(k, n + 1) = G(U(k, n)) + F(U(k - 1, n)) - G(U(k - 1, n))

After k iterations the first k states are those of F alone. So iteration k begins with slice k - 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import cos, pi, sin
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Diffusion", "Parareal"]

Task = tuple[int, int]
"""An iteration and a slice."""


@dataclass(frozen=True)
class Diffusion:
    """Heat in a square plate with cold edges, which a spot of light heats that runs around in it.

    ``points`` is the number of grid points along a side, ``rate`` the diffusion, ``turns`` how often the spot goes
    round in a unit of time. Each step is implicit (backward Euler) in one direction, and then in the other.
    """

    points: int = 160
    rate: float = 0.01
    turns: float = 1.5

    @cached_property
    def grid(self) -> Tensor:
        """Places of the inner points, along a side of length 1."""
        return torch.arange(1, self.points + 1, dtype=torch.float64) / (self.points + 1)

    def heat(self, time: float) -> Tensor:
        """What the spot adds in a unit of time."""
        angle = 2 * pi * self.turns * time
        x, y = 0.5 + 0.25 * cos(angle), 0.5 + 0.25 * sin(angle)
        wide = 2 * 0.06**2
        return torch.outer(torch.exp(-((self.grid - x) ** 2) / wide), torch.exp(-((self.grid - y) ** 2) / wide))

    def solve(self, state: Tensor, begin: float, end: float, steps: int) -> Tensor:
        """The state at ``end``, from that at ``begin``, in ``steps`` steps."""
        length = (end - begin) / steps
        one = _inverse(self.points, self.rate * length)
        for k in range(1, steps + 1):
            state = one @ (state + length * self.heat(begin + k * length)) @ one
        return state


@lru_cache
def _inverse(points: int, reach: float) -> Tensor:
    """(1 - reach d²/dx²)⁻¹ on the grid; it is symmetric."""
    here, beside = torch.eye(points, dtype=torch.float64), torch.ones(points - 1, dtype=torch.float64)
    second = beside.diag(1) + beside.diag(-1) - 2 * here
    return torch.linalg.inv(here - reach * (points + 1) ** 2 * second)


class Swept(NamedTuple):
    """U(k, n), G of it, and U(k, n + 1)."""

    start: Tensor
    coarse: Tensor
    end: Tensor


@dataclass(frozen=True)
class Parareal:
    """The tasks of ``iterations`` iterations over ``slices`` slices, as two stages for a flow: fine, then sweep.

    Item i is a task (k, n). Its fine job is F(U(k - 1, n)), and its sweep gives U(k, n + 1). In iteration 0 there is
    nothing to correct, and so nothing to do for the fine solver.
    """

    problem: Diffusion
    slices: int
    iterations: int
    fine_steps: int
    coarse_steps: int
    until: float = 1.0

    @cached_property
    def tasks(self) -> list[Task]:
        """All tasks, in order."""
        return [(k, n) for k in range(self.iterations + 1) for n in range(max(k - 1, 0), self.slices)]

    @cached_property
    def _index(self) -> dict[Task, int]:
        return {task: i for i, task in enumerate(self.tasks)}

    def kind(self, i: int) -> str:
        """Fine jobs of iteration 0 cost nothing, and all others alike."""
        return "correct" if self.tasks[i][0] else "guess"

    def fine_needs(self, i: int) -> list[tuple[str, int]]:
        """F starts from U(k - 1, n), where the sweep of the iteration before has started."""
        k, n = self.tasks[i]
        return [("sweep", self._index[k - 1, n])] if k else []

    def sweep_needs(self, i: int) -> list[tuple[str, int]]:
        """What G gave one iteration ago, and U(k, n), which the sweep of the slice before has ended with."""
        k, n = self.tasks[i]
        before = self._index.get((k, n - 1), self._index.get((k - 1, n - 1)))
        needs = [self._index[k - 1, n]] if k else []
        return [("sweep", j) for j in (*needs, before) if j is not None]

    @property
    def start(self) -> Tensor:
        """A cold plate."""
        return torch.zeros((self.problem.points, self.problem.points), dtype=torch.float64)

    def fine(self, task: Task, *before: Swept) -> tuple[Task, Tensor | None]:
        """F(U(k - 1, n))."""
        return task, self._solve(before[0].start, task[1], self.fine_steps) if before else None

    def sweep(self, done: tuple[Task, Tensor | None], *before: Swept) -> Swept:
        """G from U(k, n) on, and the correction."""
        (_, n), fine = done
        start = before[-1].end if n else self.start
        coarse = self._solve(start, n, self.coarse_steps)
        return Swept(start, coarse, coarse if fine is None else coarse + fine - before[0].coarse)

    def _solve(self, state: Tensor, n: int, steps: int) -> Tensor:
        each = self.until / self.slices
        return self.problem.solve(state, n * each, (n + 1) * each, steps)

    def ends(self, results: Sequence[Swept]) -> list[Tensor]:
        """The last state after each iteration."""
        return [results[self._index[k, self.slices - 1]].end for k in range(self.iterations + 1)]

    def serial(self) -> Tensor:
        """The last state by the fine solver alone, slice after slice."""
        state = self.start
        for n in range(self.slices):
            state = self._solve(state, n, self.fine_steps)
        return state
