"""A table as flat arrays: one entry an action, device by device in the order in which they run.

::

    0F0 (0F1;0B0) | 1F0 1B0       stage       0  0  0  1  1
                                  op          F  F  B  F  B    as indices into names
                                  microbatch  0  1  0  0  0
                                  opens       1  1  0  1  1    whether it is the first of its slot
                                  bounds      0  3  5          device r has actions bounds[r] to bounds[r + 1] - 1

``Schedule`` shows the same as tuples of ``Action``. What has to be quick reads the arrays: a million actions are a
million small numbers here and gigabytes of objects there.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from pipelab.errors import ConfigurationError
from pipelab.schedules.action import OPS, Action, Slot, actions_of
from pipelab.schedules.reserved import reserved

__all__ = ["OP_NAMES", "Array", "Table", "in_turns"]

Array: TypeAlias = npt.NDArray[Any]

OP_NAMES: Final = tuple(OPS)
F, B, I, W, R, U = range(len(OP_NAMES))  # noqa: E741
_LARGEST = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Table:
    """The arrays of a table. To be read, not changed: schedules share them.

    ``names`` are ``OP_NAMES``, and behind them the words that stand for ops in a table that is wrong.
    """

    stage: Array
    op: Array
    microbatch: Array
    opens: Array
    bounds: Array
    names: tuple[str, ...] = OP_NAMES

    @classmethod
    def of_programs(cls, programs: Sequence[Sequence[Slot]]) -> Table:
        """The arrays of programs that were written as objects."""
        for device, program in enumerate(programs):
            if () in program:
                raise ConfigurationError(
                    f"device {device}, position {program.index(())}: the slot is empty; a slot is an action, or a "
                    "tuple of actions"
                )
        rows = [[action for slot in program for action in actions_of(slot)] for program in programs]
        actions = [action for row in rows for action in row]
        ops = [action.op for action in actions]
        names = tuple(dict.fromkeys([*OP_NAMES, *ops]))
        codes = {name: code for code, name in enumerate(names)}
        opens = [part == 0 for program in programs for slot in program for part in range(len(actions_of(slot)))]
        return cls(
            _small(np.array([action.stage for action in actions])),
            np.array([codes[op] for op in ops], np.int8 if len(names) < 100 else np.int64),
            _small(np.array([action.microbatch for action in actions])),
            np.array(opens, bool),
            np.cumsum([0, *map(len, rows)]),
            names,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __len__(self) -> int:
        return len(self.op)

    @property
    def devices(self) -> int:
        """p."""
        return len(self.bounds) - 1

    @cached_property
    def device(self) -> Array:
        """Of each action."""
        return np.repeat(np.arange(self.devices, dtype=np.int32), np.diff(self.bounds))

    @cached_property
    def slot(self) -> Array:
        """Of each action; slots count from 0 through all devices."""
        return np.cumsum(self.opens, dtype=np.int32) - 1

    @cached_property
    def first(self) -> Array:
        """Of each slot: its first action."""
        return np.flatnonzero(self.opens)

    @property
    def fused(self) -> bool:
        """Whether some slot has several actions."""
        return len(self.first) < len(self)

    @cached_property
    def slot_bounds(self) -> Array:
        """Device r has slots ``slot_bounds[r]`` to ``slot_bounds[r + 1] - 1``."""
        return np.concatenate([[0], np.cumsum(self.opens)])[self.bounds]

    @cached_property
    def slot_device(self) -> Array:
        """Of each slot."""
        return self.device[self.first]

    @cached_property
    def keys(self) -> Array:
        """Of each action, a number for its device, stage and micro-batch."""
        home = self.device * np.int64(self.stage.max(initial=0) + 1) + self.stage
        number = np.cumsum(np.bincount(home) > 0) - 1
        return number[home] * (int(self.microbatch.max(initial=0)) + 1) + self.microbatch

    def last(self, which: Array) -> Array:
        """By key, the last of some actions, -1 where there is none."""
        found = np.full(int(self.keys.max(initial=-1)) + 1, -1, np.int64)
        found[self.keys[which]] = which.nonzero()[0]
        return found

    @cached_property
    def lives(self) -> tuple[Array, Array]:
        """By key, its F, and the last of its B, I or W: actions, -1 where there is none."""
        return self.last(self.op == F), self.last((self.op >= B) & (self.op <= W))

    @cached_property
    def ops(self) -> frozenset[str]:
        """The ops that occur."""
        return frozenset(self.names[code] for code in np.bincount(self.op).nonzero()[0].tolist())

    @cached_property
    def key(self) -> tuple[bytes, ...]:
        """Equal for equal tables that are sound."""
        arrays = (self.stage, self.op, self.microbatch, self.opens, self.bounds)
        return tuple(array.tobytes() for array in arrays)

    def action(self, k: int) -> Action:
        """Action k as an object."""
        return Action(int(self.stage[k]), self.names[self.op[k]], int(self.microbatch[k]))

    def actions(self, where: Array | slice = slice(None)) -> list[Action]:
        """Some of the actions, or all, as objects."""
        ops = [self.names[code] for code in self.op[where].tolist()]
        return list(map(Action, self.stage[where].tolist(), ops, self.microbatch[where].tolist()))

    def programs(self) -> tuple[tuple[Slot, ...], ...]:
        """The same as objects: one tuple of slots a device."""
        slots: list[Slot] = list(self.actions())
        if self.fused:
            ends = [*self.first[1:].tolist(), len(self)]
            actions, slots = self.actions(), []
            for begin, end in zip(self.first.tolist(), ends, strict=True):
                slots.append(actions[begin] if end == begin + 1 else tuple(actions[begin:end]))
        ends = self.slot_bounds.tolist()
        return tuple(tuple(slots[begin:end]) for begin, end in itertools.pairwise(ends))

    def pairs(self, op: str) -> frozenset[tuple[int, int]]:
        """(stage, micro-batch) of all actions of one op."""
        here = self.op == self.names.index(op)
        return frozenset(zip(self.stage[here].tolist(), self.microbatch[here].tolist(), strict=True))

    def with_recompute(self) -> Table:
        """An R, alone in its slot, before each slot with a B, an I, or a W that has no I.

        Where that slot has the F as well, the R stands in it, right before the backward.
        """
        begins, halved = (self.op == B) | (self.op == I), self.pairs("I")
        for k in (self.op == W).nonzero()[0].tolist():
            begins[k] = (int(self.stage[k]), int(self.microbatch[k])) not in halved
        which = begins.nonzero()[0]
        first = self.first[self.slot[which]]
        alone = np.array([not self._forward_among(begin, k) for begin, k in zip(first, which, strict=True)], bool)
        where = np.where(alone, first, which)
        return Table(
            np.insert(self.stage, where, self.stage[which]),
            np.insert(self.op, where, np.int8(R)),
            np.insert(self.microbatch, where, self.microbatch[which]),
            np.insert(self.opens, where, alone),
            self.bounds + np.searchsorted(np.sort(where), self.bounds),
            self.names,
        )

    def _forward_among(self, begin: int, k: int) -> bool:
        """Whether one of the actions from ``begin`` up to action k is the forward that k takes back."""
        here = slice(begin, k)
        same = (self.stage[here] == self.stage[k]) & (self.microbatch[here] == self.microbatch[k])
        return bool((same & (self.op[here] == F)).any())

    def forward_part(self) -> Table:
        """The forwards, each in a slot of its own."""
        kept = self.op == F
        bounds = np.concatenate([[0], np.cumsum(kept)])[self.bounds]
        opens = np.ones(int(kept.sum()), bool)
        return Table(self.stage[kept], self.op[kept], self.microbatch[kept], opens, bounds)


def _small(numbers: Array) -> Array:
    """In half of the space, if they are numbers that fit there; a table that is wrong may hold any."""
    if not len(numbers) or (numbers.min() >= 0 and numbers.max() <= _LARGEST):
        return numbers.astype(np.int32)
    return numbers


@reserved
def in_turns(
    warmups: Sequence[int],
    microbatches: Array,
    forward_stages: Array,
    backward_stages: Array | None = None,
    waits: Sequence[int] | None = None,
) -> Table:
    """On device r ``warmups[r]`` forwards, then a forward and a backward in turn, then the backwards that are left.

    Its k-th forward is of ``microbatches[k]`` on ``forward_stages[r, k]``; so is its k-th backward, or else on
    ``backward_stages[r, k]``. With ``waits`` a backward is an I, and its W follows right behind the I of ``waits[r]``
    backwards later, or at the end.
    """
    p, n = len(warmups), len(microbatches)
    k, w = np.arange(n), np.array(warmups, int).reshape(p, 1)
    length = 2 * n if waits is None else 3 * n
    # Turn k: forward w + k if there is one, backward k, and W k - late if there is one.
    late = np.full((p, 1), n) if waits is None else np.minimum(np.array(waits, int), n).reshape(p, 1)
    begins = length * np.arange(p).reshape(p, 1) + w

    def before(turn: Array) -> Array:
        """How many actions there are in the turns before."""
        found: Array = turn + np.minimum(turn, n - w) + np.maximum(turn - late, 0)
        return found

    forward_at = begins + np.where(k < w, k - w, before(k - w))
    backward_at = begins + before(k) + (k < n - w)
    stage, op = np.empty(length * p, np.int32), np.full(length * p, F, np.int8)
    microbatch, backward = (
        np.empty(length * p, np.int32),
        forward_stages if backward_stages is None else backward_stages,
    )
    stage[forward_at], stage[backward_at] = forward_stages, backward
    microbatch[forward_at] = microbatch[backward_at] = microbatches
    op[backward_at] = B
    if waits is not None:
        op[backward_at] = I
        turn = k + late
        weights_at = begins + np.where(turn < n, before(turn + 1) - 1, before(np.full(1, n)) + turn - n)
        stage[weights_at], microbatch[weights_at], op[weights_at] = backward, microbatches, W
    return Table(stage, op, microbatch, np.ones(length * p, bool), length * np.arange(p + 1))
