"""The rules of a board: how large it is, how long actions take, how much a device may hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pipelab.errors import ConfigurationError, whole_number
from pipelab.schedules.action import Action
from pipelab.schedules.catalogue import round_robin
from pipelab.schedules.dependencies import needs
from pipelab.teaching.board.words import columns

__all__ = ["Limit", "Rules"]

Limit = float | Sequence[float | None] | None


@dataclass(frozen=True)
class Rules:
    """What holds on a board: sizes, durations and the memory cap.

    ``devices`` is p, ``microbatches`` m, ``chunks`` v: stage s of the p * v stages lives on device s mod p.
    ``forward`` and ``backward`` are the columns that one F and one B of a stage (a chunk, where v > 1) take.
    ``limit`` is the most micro-batches that a device may have in flight, in full shares (chunks / v): one number for
    all devices, or one a device; None is no limit. Raises ConfigurationError for what no table could keep.
    """

    devices: int
    microbatches: int
    chunks: int = 1
    forward: int = 1
    backward: int = 1
    limit: Limit = None

    def __post_init__(self) -> None:
        symbols = {"devices": "p", "microbatches": "m", "chunks": "v", "forward": "", "backward": ""}
        for name, symbol in symbols.items():
            object.__setattr__(self, name, whole_number(name, symbol, getattr(self, name)))
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

    @property
    def stages(self) -> int:
        """p * v."""
        return self.devices * self.chunks

    @cached_property
    def placement(self) -> tuple[tuple[int, ...], ...]:
        """Stage -> devices, as a Schedule has it."""
        return round_robin(self.devices, self.chunks)

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
        return 2 * self.microbatches * self.stages * (self.forward + self.backward)

    def home(self, stage: int) -> int:
        """The device of ``stage``."""
        return self.placement[stage][0]

    def stages_on(self, device: int) -> tuple[int, ...]:
        """The stages of ``device``, in ascending order."""
        return tuple(range(device, self.stages, self.devices))

    def actions(self) -> tuple[Action, ...]:
        """Every F and B of a complete board, micro-batch by micro-batch in the order of its way."""
        return self._actions

    @cached_property
    def _actions(self) -> tuple[Action, ...]:
        up = range(self.stages)
        return tuple(
            action
            for i in range(self.microbatches)
            for action in (*(Action(s, "F", i) for s in up), *(Action(s, "B", i) for s in reversed(up)))
        )

    def duration(self, action: Action) -> int:
        """The columns that ``action`` takes."""
        return self.forward if action.op == "F" else self.backward

    def unknown(self, action: Action) -> str | None:
        """Why there is no such action on this board, in a sentence, or None if there is."""
        if action.op not in ("F", "B"):
            return f"{action}: a board has only F and B"
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
        # Of those who could supply it, the whole backward comes first, and a board has no halves.
        return {a: tuple(need.suppliers[0] for need in needs(a, self.stages, {})) for a in self._actions}

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
            parts.append(f"{self.chunks} stages on each")
        parts.append(f"{self.microbatches} micro-batches" if self.microbatches > 1 else "1 micro-batch")
        sentence = f"{', '.join(parts)}; F takes {columns(self.forward)}, B {columns(self.backward)}"
        if len(set(self.limits)) == 1:
            return sentence if self.limits[0] == math.inf else f"{sentence}; at most {self.limits[0]:g} in flight"
        shown = ", ".join("any number" if limit == math.inf else f"{limit:g}" for limit in self.limits)
        return f"{sentence}; at most {shown} in flight"


def _possible(limit: object) -> bool:
    return isinstance(limit, int | float) and not isinstance(limit, bool) and limit >= 1
