"""The rules of a board: how large it is, where stages live, how long actions take, how much a device may hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pipelab.errors import ConfigurationError, whole_number
from pipelab.schedules.action import Action
from pipelab.schedules.catalogue import recipes, round_robin
from pipelab.schedules.dependencies import needs
from pipelab.simulation.costs import Costs
from pipelab.teaching.board.words import columns, listed

__all__ = ["LAYOUTS", "Limit", "Rules"]

Limit = float | Sequence[float | None] | None

LAYOUTS = {"loop": "stage s is on device s mod p", "v": "stages go down and come back up", "two-way": "two directions"}
"""Where stages live: dealt out in turn; in a V, stages r and 2p-1-r on device r; or stages r and p-1-r on device r."""


@dataclass(frozen=True)
class Rules:
    """What holds on a board: sizes, durations and the memory cap.

    ``devices`` is p, ``microbatches`` m, ``chunks`` v: there are p * v stages, and ``layout`` says where they live
    (``LAYOUTS``). Two-way, the first half of every p micro-batches goes from device 0 to device p-1, the other half the
    other way. ``forward`` and ``backward`` are the columns that one F and one B of a stage (a chunk, where v > 1) take.
    A pair ``backward=(1, 1)`` splits each backward: I and W stand on the board in its place, and take so many.
    ``limit`` is the most micro-batches that a device may have in flight, in full shares (chunks / v): one number for
    all devices, or one a device; None is no limit. A micro-batch is in flight until its B ends,
    or its W. Raises ConfigurationError for what no table could keep.
    """

    devices: int
    microbatches: int
    chunks: int = 1
    forward: int = 1
    backward: int | tuple[int, int] = 1
    limit: Limit = None
    layout: str = "loop"

    def __post_init__(self) -> None:
        symbols = {"devices": "p", "microbatches": "m", "chunks": "v", "forward": ""}
        for name, symbol in symbols.items():
            object.__setattr__(self, name, whole_number(name, symbol, getattr(self, name)))
        object.__setattr__(self, "backward", _durations(self.backward))
        problem = self._impossible_layout()
        if problem:
            raise ConfigurationError(problem)
        if isinstance(self.limit, Sequence) and not isinstance(self.limit, str | bytes):
            object.__setattr__(self, "limit", tuple(self.limit))
            if len(tuple(self.limit)) != self.devices:
                raise ConfigurationError(
                    f"limit is given for {len(self.limit)} devices, but there are {self.devices}; give one number, or "
                    f"{self.devices}"
                )
        for entry in self.limit if isinstance(self.limit, tuple) else (self.limit,):
            if entry is not None and not _possible(entry):
                raise ConfigurationError(
                    f"limit must be at least 1 micro-batch, or None for no limit, got {entry!r}: between its forwards "
                    "and its backwards a device holds one whole micro-batch; try 1"
                )

    def _impossible_layout(self) -> str:
        if self.layout not in LAYOUTS:
            return f"layout is one of {', '.join(LAYOUTS)}, not {self.layout!r}"
        if self.layout == "v" and self.chunks != 2:
            return f"in a V each device has 2 chunks, got chunks={self.chunks}; try chunks=2"
        if self.layout == "two-way" and (self.chunks > 1 or self.devices % 2):
            near = max(self.devices - self.devices % 2, 2)
            given = f"devices={self.devices} and chunks={self.chunks}"
            return f"two ways need an even number of devices and 1 chunk, got {given}; try devices={near}, chunks=1"
        return ""

    @property
    def stages(self) -> int:
        """p * v."""
        return self.devices * self.chunks

    @property
    def ops(self) -> str:
        """What stands on the board of a stage and a micro-batch, in the order in which it runs."""
        return "".join(self._columns)

    @cached_property
    def _columns(self) -> Mapping[str, int]:
        halves = self.backward if isinstance(self.backward, tuple) else (self.backward,)
        return {"F": self.forward, **dict(zip("IW" if len(halves) > 1 else "B", halves, strict=True))}

    @cached_property
    def placement(self) -> tuple[tuple[int, ...], ...]:
        """Stage -> devices, as a Schedule has it."""
        known = {"v": "zb-v", "two-way": "chimera"}.get(self.layout)
        placement = (recipes()[known].placement if known else None) or round_robin
        return placement(self.devices, self.chunks)

    @cached_property
    def limits(self) -> tuple[float, ...]:
        """The limit of each device, in full shares; infinite where there is none."""
        given = self.limit if isinstance(self.limit, Sequence) else (self.limit,) * self.devices
        return tuple(math.inf if entry is None else float(entry) for entry in given)

    @cached_property
    def capacities(self) -> tuple[float, ...]:
        """The limit of each device, counted in (stage, micro-batch) pairs: v for each full share."""
        return tuple(limit if limit == math.inf else math.floor(limit * self.chunks + 1e-9) for limit in self.limits)

    @property
    def columns(self) -> int:
        """Where the board ends: twice what one action at a time takes, so more than any table needs."""
        return 2 * self.microbatches * self.stages * sum(self._columns.values())

    def home(self, action: Action) -> int:
        """The device of ``action``."""
        if self.layout != "two-way":
            return self.placement[action.stage][0]
        up = action.microbatch % self.devices >= self.devices // 2
        return self.devices - 1 - action.stage if up else action.stage

    def stages_on(self, device: int) -> tuple[int, ...]:
        """The stages of ``device``, in ascending order."""
        return tuple(stage for stage, homes in enumerate(self.placement) if device in homes)

    def actions(self) -> tuple[Action, ...]:
        """Every action of a complete board, micro-batch by micro-batch in the order of its way."""
        return self._actions

    @cached_property
    def _actions(self) -> tuple[Action, ...]:
        up = range(self.stages)
        return tuple(
            action
            for i in range(self.microbatches)
            for action in (
                *(Action(s, "F", i) for s in up),
                *(Action(s, op, i) for s in reversed(up) for op in self.ops[1:]),
            )
        )

    def duration(self, action: Action) -> int:
        """The columns that ``action`` takes."""
        return self._columns[action.op]

    def over(self, action: Action) -> Action:
        """What ends the time in flight of the stage and micro-batch of ``action``: its B, or its W."""
        return Action(action.stage, self.ops[-1], action.microbatch)

    def costs(self) -> Costs:
        """The same for a simulation."""
        each = {op: (float(self._columns.get(op, 0)),) * self.stages for op in "FBIW"}
        return Costs(forward=each["F"], backward=each["B"], input_gradient=each["I"], weight_gradient=each["W"])

    def unknown(self, action: Action) -> str | None:
        """Why there is no such action on this board, in a sentence, or None if there is."""
        if action.op not in self._columns:
            return f"{action}: this board has only {listed(self.ops)}"
        if not 0 <= action.stage < self.stages:
            return f"{action}: there is no stage {action.stage}; stages are 0..{self.stages - 1}"
        if not 0 <= action.microbatch < self.microbatches:
            last = self.microbatches - 1
            return f"{action}: there is no micro-batch {action.microbatch}; micro-batches are 0..{last}"
        return None

    def inputs(self, action: Action) -> tuple[Action, ...]:
        """What ``action`` needs, by the rules of a pipeline."""
        return self._inputs[action]

    def users(self, action: Action) -> tuple[Action, ...]:
        """What needs ``action``."""
        return self._users.get(action, ())

    @cached_property
    def _inputs(self) -> Mapping[Action, tuple[Action, ...]]:
        there = dict.fromkeys(self._actions)
        return {
            a: tuple(next(s for s in need.suppliers if s in there) for need in needs(a, self.stages, there))
            for a in self._actions
        }

    @cached_property
    def _users(self) -> Mapping[Action, tuple[Action, ...]]:
        found: dict[Action, tuple[Action, ...]] = {}
        for action, inputs in self._inputs.items():
            for source in inputs:
                found[source] = (*found.get(source, ()), action)
        return found

    def __str__(self) -> str:
        parts = [f"{self.devices} devices" if self.devices > 1 else "1 device"]
        if self.chunks > 1:
            parts.append(f"{self.chunks} stages on each" + (" in a V" if self.layout == "v" else ""))
        if self.layout == "two-way":
            parts.append("two directions")
        parts.append(f"{self.microbatches} micro-batches" if self.microbatches > 1 else "1 micro-batch")
        takes = ", ".join(f"{op} {columns(number)}" for op, number in self._columns.items())
        sentence = f"{', '.join(parts)}; {takes.replace(' ', ' takes ', 1)}"
        if len(set(self.limits)) == 1:
            return sentence if self.limits[0] == math.inf else f"{sentence}; at most {self.limits[0]:g} in flight"
        shown = ", ".join("any number" if limit == math.inf else f"{limit:g}" for limit in self.limits)
        return f"{sentence}; at most {shown} in flight"


def _durations(backward: int | tuple[int, int]) -> int | tuple[int, int]:
    if not isinstance(backward, Sequence) or isinstance(backward, str | bytes):
        return whole_number("backward", "", backward)
    if len(backward) != 2:
        raise ConfigurationError(f"backward is one number, or a pair for I and W, got {backward!r}; try (1, 1)")
    return whole_number("backward", "I", backward[0]), whole_number("backward", "W", backward[1])


def _possible(limit: object) -> bool:
    return isinstance(limit, int | float) and not isinstance(limit, bool) and limit >= 1
