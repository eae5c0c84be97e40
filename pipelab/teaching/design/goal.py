"""A goal, and how far a schedule is from it: its limits, the catalogue, the search and the bound, by one measure."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipelab.errors import ConfigurationError, whole_number
from pipelab.quantities import format_bytes, format_time, render_table
from pipelab.schedules.catalogue import build_schedule, recipes
from pipelab.schedules.checker import require_sound
from pipelab.schedules.reserved import reserved
from pipelab.schedules.schedule import Schedule, TimeTable
from pipelab.simulation.costs import CostModel, Costs, PerStage
from pipelab.simulation.links import links_of
from pipelab.simulation.search.bound import lower_bound
from pipelab.simulation.search.problem import Problem
from pipelab.simulation.search.search import limited, placements, search_schedule
from pipelab.simulation.simulate import simulate
from pipelab.teaching.design.tables import as_table
from pipelab.timeline import Timeline

if TYPE_CHECKING:
    from pipelab.teaching.design.trial import Trial
    from pipelab.view.picture import Picture

__all__ = ["Goal", "Rating"]

_TEXTBOOK = Costs(forward=1.0, backward=2.0)
_NEAR = 1 + 1e-9


@dataclass(frozen=True)
class Goal:
    """What a schedule is for: sizes, what everything costs, and what a device may hold.

    ``devices`` is p, ``microbatches`` m. A device has at most ``chunks`` stages. ``costs`` are those of ``simulate``,
    with messages and links; ``batch`` as there. ``memory_limit`` is what a device may hold, for all or one for each: in
    bytes where ``costs`` know activation bytes, else in full device shares of one micro-batch. Default: what min(p, m)
    micro-batches take, as device 0 holds under 1F1B. Raises ConfigurationError for what no schedule could keep.

    >>> goal = Goal(devices=4, microbatches=8, costs=Costs(forward=1, backward=2))
    >>> goal.rate(build_schedule("1f1b", 4, 8)).makespan, goal.bound
    (33.0, 27.0)
    """

    devices: int
    microbatches: int
    chunks: int = 1
    costs: CostModel = _TEXTBOOK
    memory_limit: float | Sequence[float] | None = None
    batch: int | None = None

    def __post_init__(self) -> None:
        for name, symbol in {"devices": "p", "microbatches": "m", "chunks": "v"}.items():
            object.__setattr__(self, name, whole_number(name, symbol, getattr(self, name)))
        if not hasattr(self.costs, "slot_cost"):
            hint = "pass profile.costs(batch)" if hasattr(self.costs, "costs") else "try Costs(forward=1, backward=2)"
            raise ConfigurationError(f"costs must be Costs, got {type(self.costs).__name__}; {hint}")
        _ = self.problems  # checks the rest
        if isinstance(self.costs, Costs) and not (self.costs.forward or self.costs.backward):
            raise ConfigurationError("with these costs nothing takes any time; try Costs(forward=1, backward=2)")

    @cached_property
    def problems(self) -> tuple[Problem, ...]:
        """One for each way to place stages that the costs can price."""
        found, why = [], None
        for v in range(1, self.chunks + 1):
            for homes in placements(None, self.devices, v):
                try:
                    problem = Problem.of(homes, self.devices, self.microbatches, self.costs, self.batch)
                except ConfigurationError as error:  # costs stage by stage, for another number of stages
                    why = error
                    continue
                found.append(limited(problem, self.memory_limit))
        if why is not None and not found:
            raise why
        return tuple(found)

    @property
    def in_bytes(self) -> bool:
        """Whether memory is counted in bytes, else in micro-batches of a full share."""
        return self.problems[0].in_bytes

    @property
    def limits(self) -> tuple[float, ...]:
        """What each device may hold."""
        return self.problems[0].limits

    @cached_property
    def bound(self) -> float:
        """No order of F, B, I and W takes less, with stages dealt out in turn or in a V, and within the limits."""
        return min(map(lower_bound, self.problems))

    @cached_property
    def catalogue(self) -> tuple[Rating, ...]:
        """Every schedule of the catalogue that the goal allows: those that fit first, of them the fastest first."""
        found, priced = [], {problem.stages // self.devices for problem in self.problems}
        for recipe in recipes().values():
            for v in sorted(priced):
                one_chunk = recipe.chunks is None and v < recipe.default_chunks  # has another name
                if recipe.updating or one_chunk or recipe.chunks not in (None, v):
                    continue
                if recipe.check(self.devices, self.microbatches, v) is None:
                    made = build_schedule(recipe.name, self.devices, self.microbatches, v)
                    if self._problem_with(made) is None:
                        found.append(self._rated(replace(made, name=recipe.title)))
        return tuple(sorted(found, key=lambda one: (not one.fits, one.makespan)))

    @property
    def best(self) -> Rating | None:
        """The fastest of the catalogue that fits; None where nothing does."""
        return next((one for one in self.catalogue if one.fits), None)

    @reserved
    def search(self, seconds: float = 4.0, seed: int = 0) -> Rating:
        """What ``search_schedule`` finds in that time. Raises ConfigurationError if nothing fits."""
        until, tried, why = time.monotonic() + seconds, [], None
        ways = sorted({problem.stages // self.devices for problem in self.problems})
        for k, v in enumerate(ways):
            left = max(until - time.monotonic(), 0.1) / (len(ways) - k)
            given = {"costs": self.costs, "memory_limit": self.limits, "batch": self.batch}
            try:
                found = search_schedule(self.devices, self.microbatches, v, seconds=left, seed=seed, **given)  # type: ignore[arg-type]
            except ConfigurationError as error:
                why = error
            else:
                tried.append(self._rated(found.schedule))
        if why is not None and not tried:
            raise why
        return min(tried, key=lambda one: one.makespan)

    def rate(self, schedule: object, name: str = "yours") -> Rating:
        """Where a schedule stands. It is a Schedule, a TimeTable, CSV text, rows of actions, or a generator.

        Raises ConfigurationError if it is for other sizes, ScheduleError with the checker's reasons if it is not sound.
        """
        given = as_table(schedule, self.devices, self.microbatches, name=name)
        table = given.schedule(name=name) if isinstance(given, TimeTable) else replace(given, name=name)
        require_sound(table)
        problem = self._problem_with(table)
        if problem is not None:
            raise ConfigurationError(problem)
        return self._rated(table)

    def _problem_with(self, table: Schedule) -> str | None:
        """Why a sound table is none for this goal, in a sentence."""
        p, m = self.devices, self.microbatches
        if (table.devices, table.microbatches) != (p, m) or len(set(table.weights)) > 1:
            sizes = f"p = {table.devices} and m = {table.microbatches}"
            return f"'{table.name}' is for {sizes}, and the goal has p = {p} and m = {m}; build one with these"
        if table.chunks > self.chunks:
            return f"'{table.name}' puts {table.chunks} stages on a device, and the goal allows {self.chunks}"
        if "U" in table.ops or table.forward_only:
            strange = "updates (U)" if "U" in table.ops else "no backwards"
            return f"'{table.name}' has {strange}; a goal is one whole step without updates"
        return None

    def _rated(self, table: Schedule) -> Rating:
        return Rating(self, simulate(table, self.costs, batch=self.batch, check=False))

    @reserved
    def least(self, timeline: Timeline) -> float:
        """No order within the limits takes less than that, with stages where this timeline has them.

        The proof is for F, B, I and W, of stages in one place. For others there is always the work of all devices.
        """
        table = timeline.schedule
        p, homes = self.devices, [home[0] for home in table.placement]
        if set(homes) == set(range(p)):
            problem = Problem.of(homes, p, self.microbatches, self.costs, self.batch)
            if problem.rows_of(table) is not None:
                return lower_bound(replace(problem, limits=self.limits))
        return sum(timeline.busy) / p

    @property
    def heads(self) -> tuple[str, ...]:
        """Of the columns of a table, see :meth:`Rating.row`."""
        held = "activations" if self.in_bytes else "micro-batches held"
        return ("schedule", "makespan", "idle", held, "messages", "over the bound", "fits")

    def table(self, *ratings: Rating) -> str:
        """``ratings`` beside the catalogue, the fastest first, as text."""
        return render_table(self.heads, [one.row() for one in self.ranked(*ratings)])

    def ranked(self, *ratings: Rating) -> list[Rating]:
        """``ratings`` and the catalogue: those that fit first, then by makespan; of equals ``ratings`` first."""
        return sorted((*ratings, *self.catalogue), key=lambda one: (not one.fits, one.makespan))

    def amount(self, held: float) -> str:
        """Memory in words."""
        return format_bytes(held) if self.in_bytes else f"{held:g} micro-batch{'es' if held != 1 else ''}"

    def __str__(self) -> str:
        stages = "one stage" if self.chunks == 1 else f"at most {self.chunks} stages"
        limits = ["any number" if limit == math.inf else self.amount(limit) for limit in self.limits]
        held = limits[0] if len(set(limits)) == 1 else ", ".join(limits)
        sizes = f"Devices: p = {self.devices}, with {stages} on each. Micro-batches: m = {self.microbatches}."
        return f"{sizes} {_priced(self.costs)} A device may hold {held}."


def _priced(costs: CostModel) -> str:
    """What everything costs, in a sentence or two."""
    links = links_of(costs)
    message = f"A message takes {links.latency:g}" if links.uniform else "Messages differ by pair of devices"
    if links.uniform and links.bandwidth != math.inf:
        message += f" and its bytes / {links.bandwidth:g}"
    if not isinstance(costs, Costs):
        return f"Costs are measured, in {costs.unit}. {message}."

    def shown(value: PerStage | None) -> str:
        if value is None:
            return f"{costs.backward / 2:g}" if isinstance(costs.backward, int | float) else "half of B"
        return f"{value:g}" if isinstance(value, int | float) else str(tuple(value))

    halves = f"I takes {shown(costs.input_gradient)} and W {shown(costs.weight_gradient)}"
    return f"F takes {shown(costs.forward)} and B {shown(costs.backward)}; {halves}. {message}."


@dataclass(frozen=True)
class Rating:
    """Where a sound schedule stands. A notebook shows it in words and as a picture.

    ``timeline`` is the prediction.
    """

    goal: Goal
    timeline: Timeline

    @cached_property
    def bound(self) -> float:
        """No order of the same stages takes less, if it fits."""
        return self.goal.least(self.timeline)

    @property
    def schedule(self) -> Schedule:
        """The table."""
        return self.timeline.schedule

    @property
    def makespan(self) -> float:
        """In the unit of the costs."""
        return self.timeline.makespan

    @property
    def held(self) -> tuple[float, ...]:
        """The most that each device holds, in the unit of the goal's limit."""
        return self.timeline.peak_bytes if self.goal.in_bytes else self.timeline.peak_microbatches

    @property
    def over_limit(self) -> tuple[int, ...]:
        """The devices that hold more than they may."""
        pairs = zip(self.held, self.goal.limits, strict=True)
        return tuple(r for r, (held, limit) in enumerate(pairs) if held > limit * _NEAR)

    @property
    def fits(self) -> bool:
        """Whether no device holds more than it may."""
        return not self.over_limit

    @property
    def over_bound(self) -> float:
        """How much longer than the bound it takes, as a fraction of the bound."""
        return self.makespan / self.bound - 1

    def prove(self, **options: Any) -> Trial:
        """Train the 48-layer model by this schedule, and compare its gradients: see ``try_schedule``."""
        from pipelab.teaching.design.trial import try_schedule  # torch is loaded when something runs

        known = {"costs": self.goal.costs} if isinstance(self.goal.costs, Costs) else {}
        return try_schedule(self.schedule, **known | options)

    def row(self) -> tuple[str, ...]:
        """Its line of a table: a cell for each of the goal's ``heads``. The bound is of those that fit."""
        timeline, most = self.timeline, max(self.held)
        held = format_bytes(most) if self.goal.in_bytes else f"{most:g}"
        figures = (format_time(self.makespan, timeline.unit), f"{timeline.bubble_fraction:.1%}", held)
        last = (f"{self.over_bound:.1%}", "yes") if self.fits else ("–", "no")
        return (self.schedule.name, *figures, str(timeline.message_count), *last)

    @property
    def memory(self) -> str:
        """What the fullest device holds, in words."""
        return self.goal.amount(max(self.held))

    def sentences(self) -> list[str]:
        """What there is to say, a line each."""
        timeline, best = self.timeline, self.goal.best
        takes = format_time(self.makespan, timeline.unit)
        said = [
            f"{self.schedule.name}: {takes}, {timeline.bubble_fraction:.1%} idle, {timeline.message_count} messages.",
            f"The fullest device holds {self.memory}. {self._fitting()}",
        ]
        least = f"No order of these stages that fits takes less than {format_time(self.bound, timeline.unit)}"
        exact = self.makespan <= self.bound * _NEAR
        beside = ", so this is the shortest" if exact else f"; this takes {self.over_bound:.1%} more"
        said.append(f"{least}{beside if self.fits else ''}.")
        if best is None:
            said.append("Nothing of the catalogue fits.")
        else:
            gain = 1 - self.makespan / best.makespan
            by = "as long" if abs(gain) < 1e-9 else f"{abs(gain):.1%} {'less' if gain > 0 else 'more'}"
            rival = f"The fastest of the catalogue that fits is {best.schedule.name}"
            said.append(f"{rival}, with {format_time(best.makespan, timeline.unit)}; this takes {by}.")
        return said

    def _fitting(self) -> str:
        if self.fits:
            return "That fits."
        r = self.over_limit[0]
        held, limit = self.goal.amount(self.held[r]), self.goal.amount(self.goal.limits[r])
        return f"That does not fit: device {r} holds {held}, and may hold {limit}."

    def __str__(self) -> str:
        return "\n".join(self.sentences())

    def picture(self) -> Picture:
        """The predicted timeline, with what each device holds."""
        from pipelab.view.timeline import plot_timeline

        return plot_timeline(self.timeline, phases=False)

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        from pipelab.teaching.design.paper import shown

        return shown(str(self), self.picture(), include, exclude)
