"""The best table found in the time that is given."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from pipelab.errors import ConfigurationError, whole_number
from pipelab.quantities import format_time
from pipelab.schedules.catalogue import build_schedule, recipes, round_robin
from pipelab.schedules.schedule import Schedule
from pipelab.simulation.costs import CostModel, Costs
from pipelab.simulation.search.bound import lower_bound
from pipelab.simulation.search.greedy import build, one_by_one, rules
from pipelab.simulation.search.improve import improve, scattered
from pipelab.simulation.search.problem import Problem, Rows
from pipelab.simulation.simulate import simulate
from pipelab.timeline import Timeline

__all__ = ["Found", "limited", "placements", "search_schedule"]

Start = tuple[float, str, Rows]  # makespan, name, rows
_FEW, _RANDOM, _PART = (
    4,
    400,
    0.1,
)  # starts of a kind; random ones are built until there are so many, or so much is over


@dataclass(frozen=True)
class Found:
    """The best table. ``known``: those of the catalogue that fit, by name, with their makespans, the best first.

    No order of F, B, I and W takes less than ``bound``, on the placements that were searched.
    ``source`` says which table the best one came from, and ``tries`` how many were looked at.
    """

    schedule: Schedule
    timeline: Timeline
    bound: float
    known: tuple[tuple[str, float], ...]
    source: str
    tries: int
    seconds: float

    @property
    def makespan(self) -> float:
        """In the unit of the costs."""
        return self.timeline.makespan

    @property
    def proven(self) -> bool:
        """Whether no order can take less."""
        return self.makespan <= self.bound * (1 + 1e-9)

    def __str__(self) -> str:
        unit = self.timeline.unit
        bound = format_time(self.bound, unit)
        said = ["and no order takes less" if self.proven else f"no order takes less than {bound}"]
        said += [f"the best of the catalogue, {name}, takes {format_time(t, unit)}" for name, t in self.known[:1]]
        found = f"{format_time(self.makespan, unit)} ({'; '.join(said)})"
        return f"{found}; from {self.source}, {self.tries} tables in {self.seconds:.1f} s"


def search_schedule(
    devices: int,
    microbatches: int,
    chunks: int = 1,
    costs: CostModel | None = None,
    memory_limit: float | Sequence[float] | None = None,
    placement: Sequence[int] | None = None,
    *,
    batch: int | None = None,
    seconds: float = 10.0,
    seed: int = 0,
    progress: Callable[[str, float, float], None] | None = None,
) -> Found:
    """Search the order of F, B, I and W that takes least time, for what each action costs.

    ``costs``: default tF = tI = tW. Measured ones are ``pipeline.profile(...)``, or ``profile.costs(batch)`` of a saved
    profile; ``batch`` as for ``simulate``. ``memory_limit``: what a device may hold, for all or one for each. It is in
    bytes where ``costs`` know activation bytes, else in full device shares of one micro-batch. Default: min(p, m)
    micro-batches, which 1F1B holds on device 0. ``placement[s]`` is the device of stage s. Default: round-robin, and
    for v = 2 also a V. At most about ``seconds`` are spent. ``progress(source, makespan, bound)`` is called for each
    better table. The result is never worse than the best of the catalogue that fits. Raises ConfigurationError if
    nothing fits.

    >>> found = search_schedule(devices=4, microbatches=8, costs=Costs(forward=1, backward=2), seconds=2)
    >>> found.makespan, found.proven    # 1F1B takes 33
    (27.0, True)
    """
    p, m, v = whole_number("devices", "p", devices), whole_number("microbatches", "m", microbatches), chunks
    v = whole_number("chunks", "v", v)
    given = Costs(forward=1.0, backward=2.0) if costs is None else costs
    if not seconds > 0:
        raise ConfigurationError(f"seconds must be positive, got {seconds!r}; try 10")
    if not hasattr(given, "slot_cost"):
        hint = "pass profile.costs(batch)" if hasattr(given, "costs") else "try Costs(forward=1, backward=2)"
        raise ConfigurationError(f"costs must be Costs, got {type(given).__name__}; {hint}")
    begin, ways = time.monotonic(), placements(placement, p, v)
    problems = [limited(Problem.of(homes, p, m, given, batch), memory_limit) for homes in ways]
    least = math.inf

    def tell(source: str, makespan: float, bound: float) -> None:
        nonlocal least
        if progress is not None and makespan < least - 1e-12:
            least = makespan
            progress(source, makespan, bound)

    each = [_search(problem, seconds / len(ways), seed, tell) for problem in problems]
    found = [one for one in each if one is not None]
    if not found:
        raise ConfigurationError(_refusal(problems[0]))
    best = min(found, key=lambda one: one.makespan)
    known: dict[str, float] = {}
    for name, makespan in (pair for one in found for pair in one.known):
        known[name] = min(makespan, known.get(name, makespan))
    return replace(
        best,
        bound=min(map(lower_bound, problems)),
        known=tuple(sorted(known.items(), key=lambda pair: pair[1])),
        tries=sum(one.tries for one in found),
        seconds=time.monotonic() - begin,
    )


def _refusal(problem: Problem) -> str:
    """Of a problem in which one micro-batch alone does not fit."""
    alone = problem.schedule(problem.merged(one_by_one(problem)), "one micro-batch at a time")
    timeline = simulate(alone, problem.costs, batch=problem.batch, check=False)
    needs = timeline.peak_bytes if problem.in_bytes else timeline.peak_microbatches
    need, limit, r = max(
        (need, limit, r) for r, (need, limit) in enumerate(zip(needs, problem.limits, strict=True)) if need > limit
    )
    return (
        f"nothing fits: one micro-batch alone takes {need:g} on device {r}, and {limit:g} are allowed there; give at "
        f"least {need:g}"
    )


def limited(problem: Problem, given: float | Sequence[float] | None) -> Problem:
    """With the ``memory_limit`` that was given to a search."""
    p = problem.devices
    if given is None:
        given = min(p, problem.microbatches) * max(problem.one_microbatch)
    try:
        limits = tuple(map(float, given)) if isinstance(given, Iterable) else (float(given),) * p
    except (TypeError, ValueError):  # such as "60MB"
        limits = ()
    if len(limits) != p or not all(one > 0 for one in limits):
        raise ConfigurationError(
            f"memory_limit is one positive number, or one for each of {p} devices, in bytes where costs know "
            f"bytes, else in micro-batches; got {given!r}"
        )
    return replace(problem, limits=limits)


def placements(given: Sequence[int] | None, p: int, v: int) -> list[tuple[int, ...]]:
    """Where stages may live: what was given, or else what a search tries."""
    if given is not None:
        homes = tuple(given)
        if len(homes) < p or set(homes) != set(range(p)):
            raise ConfigurationError(f"placement names the device of each stage, and all of 0..{p - 1}; got {given!r}")
        return [homes]
    dealt = tuple(homes[0] for homes in round_robin(p, v))
    return [dealt, (*range(p), *reversed(range(p)))] if v == 2 and p > 1 else [dealt]


def _search(problem: Problem, seconds: float, seed: int, tell: Callable[[str, float, float], None]) -> Found | None:
    """The best for one placement; None where nothing fits."""
    until, bound, random = time.monotonic() + seconds, lower_bound(problem), Random(seed)
    best = _Best(problem, tell, bound)
    known: dict[str, float] = {}
    pool = _rated(problem, "one micro-batch at a time", one_by_one(problem))
    for name, table in _catalogue(problem):
        known[name] = best.offer(name, table)
        rows = problem.rows_of(table)
        pool += [] if rows is None else _rated(problem, name, rows)
    tries = 1 + len(known)

    def build_more(name: str, ways: Iterable[Callable[[], Rows | None]], soon: float) -> list[Start]:
        nonlocal tries
        found: list[Start] = []
        for way in ways:
            if time.monotonic() > soon or any(one[0] <= bound * (1 + 1e-9) for one in (*pool, *found)):
                break
            tries += 1
            rows = way()
            found += [] if rows is None else _rated(problem, name, rows)
        return found

    pool += build_more("a greedy rule", (partial(build, problem, rule) for rule in rules()), until)
    soon = time.monotonic() + _PART * (until - time.monotonic())
    noisy = build_more("a random start", (partial(scattered, problem, random) for _ in range(_RANDOM)), soon)
    starts = _first(pool, _FEW) + _first(noisy, _FEW)
    for _, name, rows in _first(starts, 1):
        best.offer(name, problem.schedule(rows, "searched"))
    for most, part in ((2 * _FEW, 0.5), (2, 1.0)):  # each of many for a while, then the best two
        starts, soon, pool = _first(starts, most), time.monotonic() + part * (until - time.monotonic()), []
        for k, (_, name, rows) in enumerate(starts):
            if best.makespan <= bound * (1 + 1e-9):
                break
            end = time.monotonic() + (soon - time.monotonic()) / (len(starts) - k)

            def go_on(tried: int, end: float = end) -> bool:
                return tried % 16 > 0 or time.monotonic() < end

            better, tried = improve(problem, rows, random, go_on, bound)
            tries += tried
            found = _rated(problem, name, better)
            pool += found
            for _, _, each in found:
                best.offer(f"{name}, improved", problem.schedule(each, "searched"))
        starts = pool
    if best.timeline is None:
        return None
    return Found(best.timeline.schedule, best.timeline, bound, tuple(known.items()), best.source, tries, seconds)


def _first(pool: list[Start], most: int) -> list[Start]:
    """The best of them, no two alike."""
    found: list[Start] = []
    for one in sorted(pool, key=lambda one: one[0]):
        if len(found) < most and all(one[2] != other[2] for other in found):
            found.append(one)
    return found


class _Best:
    """The best table so far, told to whoever listens."""

    def __init__(self, problem: Problem, tell: Callable[[str, float, float], None], bound: float) -> None:
        self.makespan, self.source = math.inf, ""
        self.timeline: Timeline | None = None
        self._problem, self._tell, self._bound = problem, tell, bound

    def offer(self, source: str, schedule: Schedule) -> float:
        """By the simulator, which also knows messages that wait for others."""
        timeline = simulate(schedule, self._problem.costs, batch=self._problem.batch, check=False)
        if timeline.makespan < self.makespan - 1e-12:
            self.makespan, self.source, self.timeline = timeline.makespan, source, timeline
            self._tell(source, timeline.makespan, self._bound)
        return timeline.makespan


def _rated(problem: Problem, name: str, rows: Rows) -> list[Start]:
    """With the makespan, and so with whole backwards; nothing for rows that wait forever or do not fit."""
    ways = [rows, problem.merged(rows)] if any(problem.pays) else [rows]
    fitting = [way for way in ways if all(problem.fits(row, r) for r, row in enumerate(way))]
    timed = [(problem.timed(way), way) for way in fitting]
    return [(found.makespan, name, way) for found, way in timed if found is not None]


def _catalogue(problem: Problem) -> Iterator[tuple[str, Schedule]]:
    """The schedules by name that can be built for this placement, and that fit."""
    p, m = problem.devices, problem.microbatches
    v = problem.stages // p
    for recipe in sorted(
        recipes().values(), key=lambda one: one.default_chunks != v
    ):  # of equals, those made for this v
        if recipe.updating is not None or (recipe.chunks or v) != v or recipe.check(p, m, v) is not None:
            continue
        schedule = build_schedule(recipe.name, p, m, v)
        if schedule.placement != tuple((r,) for r in problem.homes) or schedule.microbatches != m:
            continue
        timeline = simulate(schedule, problem.costs, batch=problem.batch, check=False)
        peaks = timeline.peak_bytes if problem.in_bytes else timeline.peak_microbatches
        if all(peak <= limit * (1 + 1e-9) for peak, limit in zip(peaks, problem.limits, strict=True)):
            yield recipe.name, schedule
