"""The schedules that can be built by name.

A schedule joins by adding one file to ``generators/`` that defines ``RECIPE``; nothing else has to change.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from pipelab.errors import ConfigurationError, whole_number
from pipelab.schedules.action import Updating
from pipelab.schedules.reserved import reserved
from pipelab.schedules.schedule import Program, Schedule

if TYPE_CHECKING:
    from pipelab.schedules.table import Table

__all__ = ["Recipe", "build_schedule", "recipes", "round_robin"]


def _anything_goes(devices: int, microbatches: int, chunks: int) -> None:
    return None


@dataclass(frozen=True)
class Recipe:
    """How one schedule is built.

    ``programs(p, m, v)`` writes one program per device, as tuples of slots or as a :class:`Table`. ``weights(m)`` gives
    the micro-batches' relative sizes (default: 1 for each of m). ``check(p, m, v)`` returns a sentence where the
    schedule cannot be built, else None.
    Stage s lives on device s mod p unless ``placement(p, v)`` says otherwise. ``updating(m)`` is of those without a
    flush.
    """

    name: str
    title: str
    source: str
    programs: Callable[[int, int, int], Sequence[Program] | Table]
    chunks: int | None = 1  # the only v it knows; None: any
    default_chunks: int = 1
    weights: Callable[[int], tuple[float, ...]] = lambda m: (1.0,) * m
    check: Callable[[int, int, int], str | None] = _anything_goes
    placement: Callable[[int, int], tuple[tuple[int, ...], ...]] | None = None
    updating: Callable[[int], Updating] | None = None


def round_robin(devices: int, chunks: int) -> tuple[tuple[int, ...], ...]:
    """Stage s on device s mod p, for p * v stages: how virtual stages are placed (arXiv 2104.04473, 2.2)."""
    return tuple((stage % devices,) for stage in range(devices * chunks))


@cache
def recipes() -> Mapping[str, Recipe]:
    """All recipes by name, found in ``generators/``."""
    from pipelab.schedules import generators

    modules = (
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(generators.__path__, f"{generators.__name__}.")
    )
    return {module.RECIPE.name: module.RECIPE for module in modules if hasattr(module, "RECIPE")}


@reserved
def build_schedule(
    name: str, devices: int, microbatches: int, chunks: int | None = None, *, recompute: bool = False
) -> Schedule:
    """Build a schedule by name, such as ``"1f1b"``; :func:`recipes` has all names.

    ``devices`` is p, ``microbatches`` m, ``chunks`` v (stages per device; 1 unless the schedule interleaves).
    ``recompute`` puts an R before each backward. Raises ConfigurationError, which offers the nearest thing that works.

    >>> build_schedule("1f1b", devices=4, microbatches=4).programs[3][:2]
    (Action(stage=3, op='F', microbatch=0), Action(stage=3, op='B', microbatch=0))
    """
    known = recipes()
    recipe = known.get(name.lower()) if isinstance(name, str) else None
    if recipe is None:
        close = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.3)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise ConfigurationError(f"there is no schedule '{name}'; known are {', '.join(sorted(known))}{hint}")
    p = whole_number("devices", "p", devices)
    m = whole_number("microbatches", "m", microbatches)
    v = recipe.default_chunks if chunks is None else whole_number("chunks", "v", chunks)
    if recipe.chunks is not None and v != recipe.chunks:
        several = "; several chunks need 'interleaved'" if recipe.chunks == 1 else ""
        raise ConfigurationError(
            f"'{name}' has {recipe.chunks} chunk(s) per device, got v = {v}; try v = {recipe.chunks}{several}"
        )
    problem = recipe.check(p, m, v)
    if problem is not None:
        raise ConfigurationError(problem)
    made, placement, weights = recipe.programs(p, m, v), (recipe.placement or round_robin)(p, v), recipe.weights(m)
    updating = None if recipe.updating is None else recipe.updating(m)
    schedule = (
        Schedule(recipe.name, tuple(map(tuple, made)), placement, weights, updating)
        if isinstance(made, Sequence)
        else Schedule.of_table(recipe.name, made, placement, weights)
    )
    return schedule.with_recompute() if recompute else schedule
