"""``Adaptive``: trains a Pipeline, and moves its layers when a device has become slower or memory short."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median, median_low
from typing import Any

from torch import nn

from pipelab.errors import ConfigurationError, ScheduleError, whole_number
from pipelab.models.cut import cut_layers, sections_of
from pipelab.models.shards import is_split
from pipelab.quantities import Limits, format_bytes, format_time, parse_limits
from pipelab.runtime.pipeline import Pipeline
from pipelab.runtime.report import StepReport
from pipelab.runtime.setup.microbatches import batch_size
from pipelab.schedules.catalogue import build_schedule
from pipelab.schedules.schedule import Schedule
from pipelab.timeline import Timeline
from pipelab.tuning.measure import profile_layers
from pipelab.tuning.monitor.monitor import Monitor
from pipelab.tuning.planning.layers import Layers
from pipelab.tuning.planning.plan import CutPlan, plan_cuts
from pipelab.tuning.profile import CostProfile

__all__ = ["Adaptive", "Decision", "Setup"]

NOTICED = 0.1
"""A device whose time per layer differs by less is what it was."""
ROOM = 0.95
"""Memory is short above this part of the limit, and plans stay below it."""


@dataclass(frozen=True)
class Setup:
    """A table and a cut. Times of a step in seconds, from its first forward to its last backward."""

    schedule: Schedule = field(repr=False)
    cuts: tuple[int, ...]
    """The first layers of stages 1, 2, ..."""
    sizes: tuple[int, ...]
    """How many layers each stage has."""
    predicted: float
    measured: float | None = None
    """The median over the steps that were looked at; None until then."""

    def __str__(self) -> str:
        return f"{self.schedule.name} with m = {self.schedule.microbatches}"


@dataclass(frozen=True)
class Decision:
    """What was decided after step number ``step``, and why. Where nothing moves, ``after`` is ``before``."""

    step: int
    why: str
    before: Setup
    after: Setup

    @property
    def moved(self) -> bool:
        """Whether the pipeline was made anew."""
        return self.after is not self.before

    def __str__(self) -> str:
        old, new = self.before, self.after
        if not self.moved:
            return f"step {self.step}: {self.why}; nothing moves"
        table = "" if new.schedule == old.schedule else f"{new} in place of {old}; "
        layers = " -> ".join(" ".join(map(str, one.sizes)) for one in (old, new))
        times = [format_time(one.predicted, "s") for one in (new, old)]
        told = (
            f"step {self.step}: {self.why}; {table}layers {layers}; predicted {times[0]} a step instead of {times[1]}"
        )
        if new.measured is not None and old.measured is not None:
            told += f"; measured {format_time(new.measured, 's')} instead of {format_time(old.measured, 's')}"
        return told


@dataclass(frozen=True)
class _Seen:
    """A step of one replica. By device: what its slots cost, and the bytes that it held."""

    step: int
    batch: int
    busy: Sequence[float]
    held: Sequence[int]
    makespan: float


class Adaptive:
    """Call its ``step`` in place of the Pipeline's. After ``every`` steps it looks at how long each device took.

    A device's speed is the median of what its slots cost, against what ``layers`` (from ``profile_layers``) says of the
    layers that it has. If a device differs by more than a tenth from what was known, a new cut is planned. The layers
    move if that saves more than ``least_gain`` of the predicted step. They also move if a device holds more than 95 %
    of ``memory_limit`` (as for Pipeline, whose own is the default; may be set between steps). If no cut fits, 1F1B is
    taken with smaller micro-batches, or with recomputation if that was profiled. When there is memory again, the
    schedule that was given comes back, if it is faster.

    ``history`` has a Decision for each change that was noticed. ``told`` gets its sentence: ``print``, a tqdm bar's
    ``write``, None. ``monitor`` watches the steps since the last move. Without ``layers`` a copy of the model is
    profiled after the first ``every`` steps, without recomputation.

    Training stays what it is: see ``Pipeline.reschedule``. Nothing changes within a step. Under torchrun all ranks make
    the same Adaptive and call ``step``; rank 0 decides for all, by its own ``layers`` and ``memory_limit``. All
    replicas of a mesh have the same cuts, so of each device the slowest replica counts, and the fullest.

    Raises ConfigurationError for a Pipeline whose layers cannot move or whose times are not measured.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        layers: CostProfile | None = None,
        *,
        every: int = 10,
        memory_limit: Limits = None,
        least_gain: float = 0.05,
        told: Callable[[str], object] | None = print,
    ) -> None:
        self._model = _movable(pipeline)
        number = isinstance(least_gain, int | float) and not isinstance(least_gain, bool)
        if not number or not 0 <= least_gain < 1:
            raise ConfigurationError(
                f"least_gain is a part of a step and must be at least 0 and below 1, got {least_gain!r}; try 0.05"
            )
        if told is not None and not callable(told):
            raise ConfigurationError(f"told must be a function of a sentence, or None, got {told!r}; try told=print")
        self.pipeline, self.every, self.least_gain = pipeline, whole_number("every", "", every), least_gain
        self.history: list[Decision] = []
        self._told, self._layers = told, None if layers is None else Layers(layers)
        self._size = len(sections_of(self._model).layers)
        self._last: Any = None
        self._slow: list[float] = []
        """How many times as long as profiled each device takes, as far as known."""
        self._looked: Any = None
        """Limits, and which devices were full, when it looked last."""
        self.memory_limit = memory_limit
        self._start(pipeline.schedule)

    @property
    def memory_limit(self) -> Limits:
        """Bytes allowed on each device; may be set between steps. None: what the Pipeline allows."""
        return self._limit

    @memory_limit.setter
    def memory_limit(self, limit: Limits) -> None:
        if limit is not None and not self.pipeline.settings.measure_memory:
            raise ConfigurationError("memory_limit needs measure_memory=True: what is not measured cannot be limited")
        parse_limits(limit, self.pipeline.schedule.devices)
        self._limit = limit

    def step(self, inputs: Any, targets: Any) -> StepReport:
        """One step of the Pipeline; after ``every`` of them, ``consider``."""
        self._follow_others()
        begun = time.perf_counter()
        report = self.pipeline.step(inputs, targets)
        self._count += 1
        if self._count == 1:  # it warms up
            return report
        if self.pipeline.rank == 0:
            self.monitor.observe(report, time.perf_counter() - begun)
            self._last = (inputs, targets) if self._layers is None else None
        if (self._count - 1) % self.every == 0:
            self.consider()
        return report

    def consider(self) -> Decision | None:
        """Look at the last ``every`` steps now, and act; None if there is nothing to say. All ranks call it.

        Raises ConfigurationError before the second step with these cuts.
        """
        self._follow_others()
        took, decision = self.pipeline._engine.decide(self._seen, self._decide)
        if took is not None:
            last = self.history[-1]
            self.history[-1] = replace(last, after=replace(last.after, measured=took))
        if decision is None:
            return None
        if decision.moved:
            new = decision.after
            try:
                self.pipeline.reschedule(new.schedule, new.cuts)
            except (ConfigurationError, ScheduleError) as error:
                why = f"{decision.why}, but {new} and cuts {list(new.cuts)} cannot run: {str(error).splitlines()[0]}"
                decision = replace(decision, why=why, after=decision.before)
            else:
                self._start(self._wanted)
        self.history.append(decision)
        if self._told is not None and self.pipeline._engine.leads:
            self._told(str(decision))
        return decision

    def _follow_others(self) -> None:
        if self._known != (self.pipeline.schedule, self._cuts):  # someone else has moved layers
            self._start(self.pipeline.schedule)
            self._looked = ()

    def _start(self, wanted: Schedule) -> None:
        """Watch anew: figures are about one table and one cut."""
        _movable(self.pipeline)
        self._wanted, self._known, self._count = wanted, (self.pipeline.schedule, self._cuts), 0
        self.monitor = Monitor(every=self.every, keep=self.every)
        if len(self._slow) != wanted.devices:
            self._slow, self._than = [1.0] * wanted.devices, "profiled"
        if self._layers is not None:  # what cannot be predicted is said now
            self._predict(self.pipeline.schedule.microbatches, self._slow)

    @property
    def _cuts(self) -> tuple[int, ...]:
        ranges = cut_layers(self._size, self.pipeline.schedule.stages, self.pipeline._cuts)
        return tuple(part.start for part in ranges[1:])

    @property
    def _link(self) -> dict[str, Any]:
        return {"links": self.pipeline.settings.links}

    def _predict(self, batch: int, slow: Sequence[float]) -> tuple[CostProfile, Timeline]:
        """A step as the pipeline is now, on devices that take so many times as long."""
        table = self.pipeline.schedule
        assert self._layers is not None
        if len(self._layers) != self._size:
            raise ConfigurationError(
                f"the profile has {len(self._layers)} layers, and the model of this Pipeline has {self._size}; take "
                "one with profile_layers(model, inputs, targets, loss=...)"
            )
        speeds = [1 / slow[homes[0]] for homes in table.placement]
        profile = self._layers.cut((0, *self._cuts, self._size), table.devices, speeds)
        return profile, profile.predict(table.for_batch(batch), batch, **self._link)

    def _seen(self) -> list[_Seen]:
        """The steps that this replica has watched."""
        reports = [(one.report, one.busy) for one in self.monitor.observed]
        return [
            _Seen(one.step, one.batch, busy, [held.total for held in one.memory], one.timeline.makespan)
            for one, busy in reports
        ]

    def _decide(self, replicas: Sequence[Sequence[_Seen]]) -> tuple[float | None, Decision | None]:
        """(What a step takes since the last move, where that is news; what to do and why, None if nothing changed)."""
        steps = [one for replica in replicas for one in replica]
        if not steps:
            raise ConfigurationError(
                "no step was watched with these cuts; call step() twice before, the first warms up"
            )
        if self._layers is None:
            self._layers = self._profiled()
        than, self._than = self._than, "before"
        changes, batch = self._follow(replicas), max(one.batch for one in steps)
        limits = parse_limits(self.pipeline.settings.limits if self._limit is None else self._limit, len(self._slow))
        held = [max(one.held[r] for one in steps) for r in range(len(limits))]
        full = [r for r, limit in enumerate(limits) if held[r] > ROOM * limit]
        last = self.history[-1] if self.history else None
        waits = last is not None and last.moved and last.after.measured is None
        before, self._looked = self._looked, (limits, full)
        if not (waits or changes or self._looked != before):
            return None, None
        measured = max(median(one.makespan for one in replica) for replica in replicas)
        took = measured if waits else None
        why = [f"{device} takes {times:.1f} times as long per layer as {than}" for device, times in changes.items()]
        why += [f"device {r} holds {format_bytes(held[r])} of the {format_bytes(limits[r])} allowed" for r in full]
        profile, now = self._predict(batch, self._slow)
        setup = self._setup(self.pipeline.schedule, self._cuts, now.makespan, measured)
        known = [one.total for one in profile.memory(now)]
        free = [ROOM * b * one / have if one and have else b for b, have, one in zip(limits, held, known, strict=True)]
        step, found = steps[-1].step, self._plan(batch, min(one.batch for one in steps), free)
        if isinstance(found, str):
            return took, Decision(step, ", ".join([*why, found]), setup, setup) if why else None
        table, plan = found
        gain, same = 1 - plan.makespan / now.makespan, (table, plan.cuts) == (setup.schedule, setup.cuts)
        if not same and (full or gain > self.least_gain):
            after = self._setup(table, plan.cuts, plan.makespan)
            return took, Decision(step, ", ".join(why) or "other cuts are better", setup, after)
        why += [f"the best cut saves {max(gain, 0):.0%} of a step"] if why else []
        return took, Decision(step, ", ".join(why), setup, setup) if why else None

    def _setup(self, table: Schedule, cuts: tuple[int, ...], predicted: float, measured: float | None = None) -> Setup:
        bounds = (0, *cuts, self._size)
        return Setup(table, cuts, tuple(b - a for a, b in pairwise(bounds)), predicted, measured)

    def _follow(self, replicas: Sequence[Sequence[_Seen]]) -> dict[str, float]:
        """By device, how many times as long as known it takes now, beside the others; and that is known from here."""
        size, batches = len(self._slow), {one.batch for replica in replicas for one in replica}
        alone = {batch: self._predict(batch, [1.0] * size)[1].busy for batch in batches}
        each = [
            [median_low(one.busy[r] / (alone[one.batch][r] or 1e-9) for one in replica) for replica in replicas]
            for r in range(size)
        ]
        times = [max(new) / old for new, old in zip(each, self._slow, strict=True)]
        common = median_low(times)  # the machine's, or the profile's: it moves no layer
        changes = {r: one / common for r, one in enumerate(times) if abs(one / common - 1) > NOTICED}
        self._slow = [old * common * changes.get(r, 1.0) for r, old in enumerate(self._slow)]
        where = [f" of replica {new.index(max(new))}" if len(replicas) > 1 else "" for new in each]
        return {f"device {r}{where[r]}": one for r, one in changes.items()}

    def _plan(self, batch: int, least: int, free: Sequence[float]) -> tuple[Schedule, CutPlan] | str:
        """The table and the cuts that are best among those that fit, or why none does."""
        assert self._layers is not None
        layers, wanted, found = self._layers.profile, self._wanted, []
        how: dict[str, Any] = {"batch": batch, "speeds": [1 / slow for slow in self._slow], "memory_limit": free}

        def tried(table: Schedule) -> tuple[Schedule, CutPlan]:
            return table, plan_cuts(layers, table.devices, schedule=table, **how, **self._link)

        with suppress(ConfigurationError):
            return tried(wanted)
        m = wanted.microbatches
        while m <= least:
            for recompute in (False, True):
                with suppress(ConfigurationError):
                    found.append(tried(build_schedule("1f1b", wanted.devices, m, recompute=recompute)))
            m *= 2
        without = "" if layers.recomputes else "; recomputation was not profiled (recompute=True)"
        none = f"no cuts fit, nor do they with 1f1b and smaller micro-batches{without}"
        return min(found, key=lambda one: one[1].makespan, default=none)

    def _profiled(self) -> Layers:
        """The layers of a copy, at about the size of a micro-batch."""
        settings, (inputs, targets) = self.pipeline.settings, self._last
        batch = batch_size(inputs, targets)
        if batch < 2:
            raise ConfigurationError(
                "layers are profiled with micro-batches of two sizes, and this batch has one sequence; give Adaptive a "
                "profile: profile_layers(model, inputs, targets, loss=...) with a larger batch"
            )
        b = max(batch // settings.schedule.microbatches, 1)
        profile = profile_layers(
            copy.deepcopy(self._model),
            inputs,
            targets,
            loss=settings.loss,  # type: ignore[arg-type]
            loss_terms=settings.loss_terms,
            optimizer=settings.optimizer,
            device=str(self.pipeline.torch_devices[0]),
            sizes=sorted({max(b // 2, 1), b, min(2 * b, batch)}),
            recompute="R" in settings.schedule.ops,
            split="I" in settings.schedule.ops,
            seed=settings.seed,
            progress=False,
        )
        return Layers(profile)


def _movable(pipeline: Any) -> nn.Module:
    """Its model. Raises ConfigurationError where layers cannot move, or times are not measured."""
    if not isinstance(pipeline, Pipeline):
        raise ConfigurationError(f"Adaptive is for a Pipeline, got {type(pipeline).__name__}")
    settings, table = pipeline.settings, pipeline.schedule
    if not isinstance(pipeline._model, nn.Module):
        raise ConfigurationError(
            "layers can move only where the Pipeline itself cuts the model: pass it an nn.Sequential, or a module with "
            "pipeline_sections(), in place of stages"
        )
    if any(is_split(p) for _, p in pipeline.named_parameters()):
        raise ConfigurationError(
            "layers that are split over processes (tp, shard) cannot move; make the mesh with dp and pp alone, or give "
            "Pipeline(monitor=Monitor()), which says who is slow"
        )
    if "U" in table.ops or any(len(homes) > 1 for homes in table.placement):
        kind = "updates weights on the way" if "U" in table.ops else "has stages on two devices"
        raise ConfigurationError(f"'{table.name}' {kind}, and no cuts are planned for that; take '1f1b'")
    if not settings.measure_costs or settings.clock == "unit":
        given = "clock='unit'" if settings.measure_costs else "measure_costs=False"
        raise ConfigurationError(
            f"with {given} no one knows how long a device takes; take clock='device' and leave measure_costs out"
        )
    return pipeline._model
