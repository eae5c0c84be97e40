"""What could be run: schedule x m x v x recomputation, and what a profile says about each. No torch needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from pipelab.errors import ConfigurationError, whole_number
from pipelab.quantities import DeviceMemory, format_bytes
from pipelab.schedules.catalogue import build_schedule, recipes
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.table import B, F, I, W
from pipelab.simulation.simulate import simulate
from pipelab.timeline import Timeline
from pipelab.tuning.profile import CostProfile, ProfileCosts

__all__ = [
    "Candidate",
    "Discarded",
    "Forecast",
    "Parts",
    "chunks_of",
    "forecast",
    "grid",
    "list_candidates",
    "listed",
    "synchronous",
]

NAIVE = "naive"


@dataclass(frozen=True, order=True)
class Candidate:
    """One way to run a step. ``table`` is what a search found; any other schedule is built by its name."""

    schedule: str
    microbatches: int
    chunks: int = 1
    recompute: bool = False
    table: Schedule | None = field(default=None, compare=False, repr=False)

    def build(self, devices: int) -> Schedule:
        """Its table for ``devices``. Raises ConfigurationError if there is none."""
        if self.table is not None:
            return self.table
        return build_schedule(self.schedule, devices, self.microbatches, self.chunks, recompute=self.recompute)

    @property
    def family(self) -> str:
        """Its name without m: "1f1b", "gpipe + R", "interleaved v = 2"."""
        chunks = f" v = {self.chunks}" if self.chunks > 1 else ""
        return self.schedule + chunks + (" + R" if self.recompute else "")

    def __str__(self) -> str:
        return self.family if self.schedule == NAIVE else f"{self.family}, m = {self.microbatches}"


@dataclass(frozen=True)
class Discarded:
    """A candidate that cannot be run, and why."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True)
class Parts:
    """Where a step's time goes, in seconds of the mean device. Their sum is the makespan."""

    work: float
    """beta * b of forwards and backwards: the same whatever m."""
    overhead: float
    """alpha, once an action."""
    recompute: float
    """What recomputing adds."""
    idle: float
    """The bubble, and waiting for messages or slower stages."""


@dataclass(frozen=True)
class Forecast:
    """What a profile says about a candidate. ``excess`` says which device needs too much; None where all fits."""

    candidate: Candidate
    batch: int
    tokens: int | None
    timeline: Timeline
    update: float
    memory: tuple[DeviceMemory, ...]
    parts: Parts
    excess: str | None

    @property
    def makespan(self) -> float:
        """Seconds from the first forward to the last backward."""
        return self.timeline.makespan

    @property
    def step(self) -> float:
        """Seconds of a step, the optimizer's update included."""
        return self.makespan + self.update

    @property
    def sequences_per_second(self) -> float:
        """The batch over the time of a step."""
        return self.batch / self.step

    @property
    def tokens_per_second(self) -> float | None:
        """None where a sequence's tokens are not known."""
        return None if self.tokens is None else self.sequences_per_second * self.tokens

    @property
    def bubble_fraction(self) -> float:
        """Idle device time as a fraction of total device time."""
        return self.timeline.bubble_fraction

    @cached_property
    def fullest(self) -> int:
        """The device that needs most."""
        return max(range(len(self.memory)), key=lambda r: self.memory[r].total)

    @property
    def peak_bytes(self) -> int:
        """What the fullest device needs."""
        return self.memory[self.fullest].total


def listed(name: str, given: Any) -> tuple[Any, ...]:
    """A list that was asked for, as a tuple. Raises ConfigurationError for what is none."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ConfigurationError(f"{name} must be a list, got {given!r}; try [{given!r}]")
    found = tuple(given)
    if not found:
        raise ConfigurationError(f"there is no candidate: {name} is empty; give one or more")
    return found


def synchronous() -> tuple[str, ...]:
    """The schedules by name that flush: those of the course first, then the others."""
    names = [name for name, recipe in recipes().items() if recipe.updating is None]
    return tuple(dict.fromkeys([NAIVE, "gpipe", "1f1b", "interleaved", *sorted(names)]))


def chunks_of(name: str, chunks: Sequence[int]) -> tuple[int, ...]:
    """The v with which a schedule is tried: its own, or ``chunks`` where it takes any."""
    recipe = recipes().get(name)
    return (1,) if recipe is None else tuple(chunks) if recipe.chunks is None else (recipe.chunks,)


def grid(batch: int, devices: int, around: float = math.inf) -> tuple[int, ...]:
    """Numbers of micro-batches worth a look: multiples of p and powers of two up to the batch, and those near m*."""
    found = {2**k for k in range(batch.bit_length())} | {devices * k for k in (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32)}
    if math.isfinite(around):
        found |= {math.floor(around), math.ceil(around)}
    return tuple(sorted(m for m in found if 1 <= m <= batch))


def list_candidates(
    batch: int,
    devices: int,
    *,
    schedules: Sequence[str] | None = None,
    microbatches: Sequence[int] | None = None,
    chunks: Sequence[int] = (2,),
    recompute: Sequence[bool] = (False, True),
    around: float = math.inf,
) -> tuple[list[Candidate], list[Discarded]]:
    """(those that can be built, those that cannot and why).

    ``schedules``: default all that flush. ``chunks`` are for those that take any v; naive has one candidate, whatever
    m. Raises ConfigurationError for empty lists, unknown schedules, a batch smaller than p.
    """
    tables, bad = candidate_tables(
        batch,
        devices,
        schedules=synchronous() if schedules is None else schedules,
        microbatches=microbatches,
        chunks=chunks,
        recompute=recompute,
        around=around,
    )
    return list(tables), bad


def candidate_tables(
    batch: int,
    devices: int,
    *,
    schedules: Sequence[str],
    microbatches: Sequence[int] | None,
    chunks: Sequence[int],
    recompute: Sequence[bool],
    around: float,
) -> tuple[dict[Candidate, Schedule], list[Discarded]]:
    """As :func:`list_candidates`, with the table of each."""
    devices, batch = whole_number("devices", "p", devices), whole_number("batch", "B", batch)
    if batch < devices:
        raise ConfigurationError(
            f"a batch of {batch} sequences cannot fill p = {devices} devices: at most {batch} of them would work at "
            f"the same time; give at least {devices}, better 4p = {4 * devices}, or fewer devices"
        )
    schedules, recompute = listed("schedules", schedules), listed("recompute", recompute)
    endless = [name for name in schedules if name in recipes() and recipes()[name].updating is not None]
    if endless:
        raise ConfigurationError(
            f"the tuner compares schedules that flush; {', '.join(endless)} learn otherwise with each m, so speed "
            "alone does not rank them. Leave them out, and see their steady state with: pipelab simulate"
        )
    asked = grid(batch, devices, around) if microbatches is None else listed("microbatches", microbatches)
    sizes = sorted({whole_number("microbatches", "m", m) for m in asked})
    if any(chunks_of(name, ()) == () for name in schedules):
        chunks = sorted({whole_number("chunks", "v", v) for v in listed("chunks", chunks)})
    known: dict[Any, Candidate] = {}
    good: dict[Candidate, Schedule] = {}
    bad: list[Discarded] = []
    for name in dict.fromkeys(schedules):
        for v in chunks_of(name, chunks):
            for again in sorted(set(recompute)):
                if name == NAIVE and again and False in recompute:
                    continue  # it would hold as much
                kind = [Candidate(name, m, v, again) for m in ([1] if name == NAIVE else sizes)]
                tables = {candidate: _table(candidate, devices, batch, known) for candidate in kind}
                good |= {candidate: table for candidate, table in tables.items() if isinstance(table, Schedule)}
                lost = [Discarded(candidate, table) for candidate, table in tables.items() if isinstance(table, str)]
                # Each m that was asked for has its reason; of the others one is enough, where there is none left.
                bad += lost if microbatches is not None else lost[-1:] if len(lost) == len(kind) else []
    if not good:
        reasons = "; ".join(f"{entry.candidate}: {entry.reason}" for entry in bad[:3])
        raise ConfigurationError(f"there is no candidate left. {reasons}")
    return good, bad


def _table(candidate: Candidate, devices: int, batch: int, known: dict[Any, Candidate]) -> Schedule | str:
    """Its table, or why it is no candidate: it cannot be built, or is the same table as one before it."""
    if candidate.microbatches > batch:
        return f"m = {candidate.microbatches} micro-batches need as many sequences, but the batch has {batch}"
    try:
        table = candidate.build(devices)
    except ConfigurationError as error:
        if "there is no schedule" in str(error):
            raise
        return str(error)
    same = known.setdefault((table.table.key, table.placement), candidate)
    return table if same is candidate else f"{candidate} is the same table as {same}"


def forecast(
    candidate: Candidate,
    profile: CostProfile,
    batch: int,
    limits: Sequence[float],
    link: dict[str, Any],
    table: Schedule | None = None,
) -> Forecast:
    """What ``profile`` says about ``candidate``; ``table``: its own, where that is built already."""
    schedule = candidate.build(profile.devices) if table is None else table
    costs = profile.costs(batch, **link)
    timeline = simulate(schedule, costs, batch=batch, check=False)
    memory = profile.memory(timeline)
    update = profile.update_seconds(schedule)
    parts = _parts(timeline, costs)
    excess = excess_of(memory, limits)
    return Forecast(candidate, batch, profile.tokens, timeline, update, memory, parts, excess)


def excess_of(memory: Sequence[DeviceMemory], limits: Sequence[float]) -> str | None:
    """Which device needs more than it is allowed."""
    over = [(held.total / limit, r) for r, (held, limit) in enumerate(zip(memory, limits, strict=True))]
    worst, r = max(over)
    if worst <= 1:
        return None
    return f"needs {format_bytes(memory[r].total)} on device {r}, and {format_bytes(limits[r])} are allowed"


def _parts(timeline: Timeline, costs: ProfileCosts) -> Parts:
    schedule, table = timeline.schedule, timeline.schedule.table
    stages, p = costs.profile.cut(schedule.stages), schedule.devices
    b = np.array([costs.sequences(schedule, i) for i in range(schedule.microbatches)])[table.microbatch]
    work = overhead = 0.0
    names = {F: "forward", B: "backward", I: "input_gradient", W: "weight_gradient"}
    for op in set(table.op.tolist()) & set(names):
        here, lines = table.op == op, [getattr(stage, names[op]) for stage in stages]
        alpha, beta = np.array([(line.alpha, line.beta) for line in lines])[table.stage[here]].T
        work, overhead = work + float(beta @ b[here]), overhead + float(alpha.sum())
    busy = sum(timeline.busy)
    again = busy - work - overhead if "R" in schedule.ops else 0.0
    return Parts(work / p, overhead / p, again / p, timeline.makespan - busy / p)


def best_first(found: Iterable[Forecast], key: Callable[[Forecast], float] = lambda f: f.step) -> list[Forecast]:
    """Forecasts, the fastest first; of equal ones those that need less memory."""
    return sorted(found, key=lambda f: (key(f), f.peak_bytes, f.candidate))
