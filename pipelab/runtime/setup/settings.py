"""Everything a Pipeline is told besides its model, checked before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.errors import ConfigurationError, ScheduleError, whole_number
from pipelab.quantities import Limits, Speeds, parse_limits, parse_speeds
from pipelab.runtime.setup.loss_scale import require_scaler
from pipelab.runtime.setup.microbatches import LossTerms
from pipelab.schedules.checker import require_sound
from pipelab.schedules.schedule import Schedule, TimeTable
from pipelab.schedules.updates import over
from pipelab.schedules.wire import room_for
from pipelab.simulation.costs import Costs
from pipelab.simulation.links import INSTANT, Links, links_of

__all__ = ["CLOCKS", "OptimizerFactory", "Settings", "require_one_of"]

OptimizerFactory = Callable[[list[tuple[str, nn.Parameter]]], torch.optim.Optimizer]
CLOCKS = ("device", "wall", "unit")
SHARDS = ("keep", "regather")
BUILD_HINT = "build one with build_schedule('1f1b', devices=4, microbatches=4)"


@dataclass(frozen=True)
class Settings:
    """How to run: see ``Pipeline``, whose arguments these are.

    Raises ConfigurationError or ScheduleError for what cannot work.
    """

    schedule: Schedule
    loss: Callable[[Any, Any], Tensor] | None = None
    optimizer: OptimizerFactory | None = None
    clock: str = "device"
    lr_scheduler: Callable[[torch.optim.Optimizer], Any] | None = None
    clip_norm: float | None = None
    costs: Costs | None = None
    links: Links = INSTANT
    loss_terms: LossTerms | None = None
    seed: int = 0
    measure_memory: bool = True
    measure_costs: bool = True
    memory_limit: Limits = None
    sends: str = "asynchronous"
    outstanding: int | None = None
    check: bool = True
    window: int = 9
    tied: Sequence[Sequence[str]] = ()
    grad_scaler: torch.amp.GradScaler | None = None
    time_limit: float | None = None
    check_finite: bool = False
    stash: bool = True
    post_validation: bool = False
    speeds: Speeds = None
    tensor_plan: Any = None
    shard: str | None = None

    def __post_init__(self) -> None:
        for name, value in (("loss", self.loss), ("loss_terms", self.loss_terms)):
            if value is not None and not callable(value):
                raise ConfigurationError(f"{name} must be a function, got {type(value).__name__}")
            if isinstance(value, type):
                raise ConfigurationError(f"{name} is the class {value.__name__}; pass an instance, {value.__name__}()")
        if self.optimizer is not None and (
            not callable(self.optimizer) or isinstance(self.optimizer, torch.optim.Optimizer)
        ):
            raise ConfigurationError(
                f"optimizer must be a function that makes one from a stage's (name, parameter) pairs, got "
                f"{type(self.optimizer).__name__}; try lambda named: torch.optim.SGD([p for _, p in named], lr=0.1)"
            )
        if self.costs is not None and not isinstance(self.costs, Costs):
            raise ConfigurationError(
                f"costs must be Costs, got {type(self.costs).__name__}; try Costs(forward=1, backward=1)"
            )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ConfigurationError(f"seed must be a whole number, got {self.seed!r}; try 0")
        object.__setattr__(self, "outstanding", room_for(self.sends, self.outstanding))
        if not isinstance(self.check, bool):
            raise ConfigurationError(f"check must be True or False, got {self.check!r}; False lets a table deadlock")
        whole_number("window", "", self.window)
        if self.memory_limit is not None and not self.measure_memory:
            raise ConfigurationError("memory_limit needs measure_memory=True: what is not measured cannot be limited")
        require_one_of("clock", self.clock, CLOCKS)
        if self.shard is not None:
            require_one_of("shard", self.shard, SHARDS)
        given = self.speeds
        self._check_schedule()
        _ = self.limits  # checks them
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ConfigurationError(
                f"clip_norm must be positive, got {self.clip_norm!r}; leave it out for no clipping"
            )
        limit: Any = self.time_limit
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0):
            raise ConfigurationError(
                f"time_limit is a number of seconds and must be positive, got {limit!r}; try 60, leave it out for one "
                "that is learnt from the steps before, or give math.inf for none"
            )
        require_scaler(self.grad_scaler, optimizer=self.optimizer is not None)
        if self.lr_scheduler is not None and self.optimizer is None:
            raise ConfigurationError("lr_scheduler needs an optimizer")
        if self.post_validation:
            self._check_post_validation()
        for links in (self.links, links_of(self.unit_costs)):
            links.require(self.schedule.devices)
        object.__setattr__(self, "speeds", [])
        self.set_speeds(given)

    def set_speeds(self, given: Any) -> None:
        """Of the next steps: the one setting that may change. Raises ConfigurationError."""
        speeds = parse_speeds(given, self.schedule.devices)
        if speeds and not self.measure_costs:
            raise ConfigurationError("speeds needs measure_costs=True: they say how long what is measured takes")
        self.speeds[:] = speeds  # type: ignore[index]

    @property
    def shown_speeds(self) -> tuple[float, ...]:
        """By what the measured costs of each device are divided; on the wall clock none is faster than it is."""
        speeds = self.speeds or [1.0] * self.schedule.devices
        most = max(speeds) if self.clock == "wall" else 1.0
        return tuple(speed / most for speed in speeds)

    def times(self, r: int) -> float:
        """How long each slot of device r is made to last, in its costs: on the wall clock slow devices are slow."""
        return 1 / self.shown_speeds[r] if self.clock == "wall" else 1.0

    @property
    def speeds_note(self) -> str:
        """Which devices are not as measured, for who looks at a timeline."""
        return ", ".join(f"device {r} at speed {speed:g}" for r, speed in enumerate(self.speeds or ()) if speed != 1)

    def _check_schedule(self) -> None:
        schedule: Any = self.schedule
        if not isinstance(schedule, Schedule):
            hint = "table.schedule() is its order" if isinstance(schedule, TimeTable) else BUILD_HINT
            raise ConfigurationError(f"schedule must be a Schedule, got {type(schedule).__name__}; {hint}")
        self.require_sound(schedule)
        if "U" in schedule.ops:
            self._check_updates()

    def require_sound(self, schedule: Schedule) -> None:
        """Raise ScheduleError unless ``schedule`` can be run so."""
        require_sound(schedule, outstanding=self.outstanding, sends=self.sends, rings=self.check)

    @property
    def batched(self) -> bool:
        """Whether what is sent after a slot and received before the next is one group."""
        return self.sends == "batched"

    def _check_post_validation(self) -> None:
        if self.optimizer is None:
            raise ConfigurationError("post_validation needs an optimizer: it says when that steps")
        if self.clip_norm is None and self.grad_scaler is None:
            raise ConfigurationError(
                "post_validation has nothing to validate: no update has to wait for other stages' gradients without "
                "clip_norm=... or grad_scaler=...; give one of them, or leave post_validation out"
            )

    def _check_updates(self) -> None:
        """What cannot be done where weights change while micro-batches are on their way."""
        schedule = self.schedule
        if schedule.updating is not None and over(schedule, 1).programs != schedule.programs:
            raise ScheduleError(
                f"schedule '{schedule.name}' has other rows than the endless table that its rule (updating=) goes on "
                "with, and the next step would run those; leave updating out, and your table is run to its end in "
                "each step"
            )
        if self.outstanding is not None and schedule.updating is not None:
            self.require_sound(over(schedule, 3))  # later steps have other rows than the first
        name = f"schedule '{self.schedule.name}' updates weights while micro-batches are on their way"
        if self.optimizer is None:
            raise ConfigurationError(f"{name}: give optimizer=..., or take '1f1b', which updates nothing by itself")
        if self.post_validation:
            raise ConfigurationError(
                f"{name}, and post_validation is about an update of all stages at a flush; leave it out, or take "
                "'1f1b', which flushes"
            )
        if self.clip_norm is not None:
            raise ConfigurationError(
                f"{name}, so no moment has the gradients of all stages and clip_norm has nothing to take the norm of; "
                "clip each stage's own gradients in its optimizer, or take '1f1b', which flushes"
            )
        if self.grad_scaler is not None:
            raise ConfigurationError(
                f"{name}, so stages cannot skip an update together, as grad_scaler asks; use bfloat16, which needs none"
            )
        if any(len(homes) != 1 for homes in self.schedule.placement):
            raise ScheduleError(f"{name}, and some stages live on two devices, whose gradients would be added up")
        if self.tied:
            raise ConfigurationError(f"{name}: tied parameters would be stepped at different times; use '1f1b'")

    @cached_property
    def limits(self) -> tuple[float, ...]:
        """Bytes allowed on each device; infinite where there is no limit. Raises ConfigurationError."""
        return parse_limits(self.memory_limit, self.schedule.devices)

    @cached_property
    def felt_links(self) -> Links:
        """What messages really go by: other clocks than the wall's add their time afterwards."""
        return self.links if self.clock == "wall" else self.links.untimed

    @property
    def unit_costs(self) -> Costs:
        """What the unit clock shows."""
        return Costs() if self.costs is None else self.costs


def require_one_of(what: str, given: Any, allowed: Sequence[str]) -> None:
    """Raise ConfigurationError if ``given`` is not among ``allowed``."""
    if given not in allowed:
        raise ConfigurationError(f"{what} must be one of {', '.join(map(repr, allowed))}, got {given!r}")
