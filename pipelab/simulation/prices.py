"""What a model of costs says about every slot and message of a table, as arrays.

Most models price by kind: one question for all actions of an op, a stage, a size. Those that know more of a slot, such
as its measured time, are asked slot by slot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeGuard

import numpy as np

from pipelab.schedules.action import Action
from pipelab.schedules.compiled import Compiled
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.table import Array, B, F, I, R
from pipelab.schedules.updates import carried, part_in
from pipelab.simulation.costs import CostModel, Costs, CostsByKind, MemoryModel
from pipelab.timeline.run import Kept

__all__ = ["Prices"]


@dataclass(frozen=True, eq=False)
class Groups:
    """Places that are priced alike: one ``example`` of each kind, and the ``kind`` of each place."""

    examples: Array
    kind: Array

    @classmethod
    def of(cls, kinds: Array) -> Groups:
        """By numbers, equal ones for places that are priced alike."""
        example = np.full(int(kinds.max(initial=-1)) + 1, -1)
        example[kinds[::-1]] = np.arange(len(kinds) - 1, -1, -1)  # the first of each
        known = example >= 0
        return cls(example[known], (np.cumsum(known, dtype=np.int32) - 1)[kinds])

    def priced(self, price: Callable[[int], float]) -> Array:
        """All places, with the price of their example."""
        prices: Array = np.array([price(k) for k in self.examples.tolist()], float)
        return prices[self.kind]


class Kinds:
    """The kinds of a schedule's slots, messages and actions; ``alike``: whether there are any that are priced alike."""

    def __init__(self, schedule: Schedule, *, alike: bool) -> None:
        self.table, self.stages, self.alike = schedule.table, schedule.stages, alike
        self._sent: tuple[Compiled, Groups] | None = None
        self._is_part = part_in(schedule) is not None
        known: dict[float, int] = {}
        weights = np.array([known.setdefault(weight, len(known)) for weight in schedule.weights], np.int64)
        self.numbers = len(known) * max(schedule.stages, int(self.table.stage.max(initial=0)) + 1)
        self.number = self.table.stage.astype(np.int64) * len(known) + weights[self.table.microbatch]

    @classmethod
    def of(cls, schedule: Schedule, *, alike: bool) -> Kinds:
        """Those of a schedule, worked out once."""
        found: Kinds = schedule.kept.get(("kinds", alike)) or cls(schedule, alike=alike)
        schedule.kept["kinds", alike] = found
        return found

    def _groups(self, kinds: Array) -> Groups:
        return Groups.of(kinds) if self.alike else Groups(np.arange(len(kinds)), np.arange(len(kinds)))

    @cached_property
    def slots(self) -> Groups:
        """By the op, stage, weight and recomputation of each of a slot's actions."""
        kinds = (self.table.op.astype(np.int64) * self.numbers + self.number) * 2 + self.recomputed
        if self.table.fused:
            known: dict[bytes, int] = {}
            parts = np.split(kinds, self.table.first[1:])
            kinds = np.array([known.setdefault(part.tobytes(), len(known)) for part in parts])
        return self._groups(kinds)

    def messages(self, made: Compiled) -> Groups:
        """By what is sent, the stage that sends it and the weight."""
        if self._sent is None or self._sent[0] is not made:
            gradient = self.table.op[made.consumer] != F
            self._sent = made, self._groups(gradient.astype(np.int64) * self.numbers + self.number[made.producer])
        return self._sent[1]

    @cached_property
    def kept(self) -> tuple[tuple[Array, Groups], ...]:
        """(actions, kinds) of those that keep something, that recompute, that start from a gradient, that leave a W."""
        op, stage = self.table.op, self.table.stage
        which = (
            (op == R) | ((op == F) & ~self.recomputed),
            op == R,
            ((op == B) | (op == I)) & (stage + 1 < self.stages),
            op == I,
        )
        return tuple((here.nonzero()[0], self._groups(self.number[here])) for here in which)

    @cached_property
    def recomputed(self) -> Array:
        """Of each action: whether there is an R of its stage and micro-batch."""
        table = self.table
        if "R" not in table.ops:
            return np.zeros(len(table), bool)
        if self._is_part:
            return np.ones(len(table), bool)  # if not in this part, then in a later one
        found = np.zeros((int(table.stage.max()) + 1, int(table.microbatch.max()) + 1), bool)
        found[table.stage[table.op == R], table.microbatch[table.op == R]] = True
        again: Array = found[table.stage, table.microbatch]
        return again


class Prices:
    """``costs`` for the table of ``schedule``."""

    def __init__(self, schedule: Schedule, costs: CostModel) -> None:
        self.schedule, self.table, self.costs = schedule, schedule.table, costs
        self.kinds = Kinds.of(schedule, alike=_by_kind(costs))

    def slot_costs(self) -> Array:
        """How long each slot runs, device by device."""
        table, costs, schedule = self.table, self.costs, self.schedule
        if not _by_kind(costs):
            rows = enumerate(np.diff(table.slot_bounds).tolist())
            return np.array([costs.slot_cost(schedule, r, k) for r, slots in rows for k in range(slots)], float)
        first = np.append(table.first, len(table))
        return self.kinds.slots.priced(
            lambda k: costs.cost_of(schedule, tuple(map(table.action, range(first[k], first[k + 1]))))
        )

    def message_sizes(self, made: Compiled) -> Array:
        """Bytes of each message."""

        def size(message: int) -> float:
            kind = "activation" if self.table.op[made.consumer[message]] == F else "gradient"
            return self.costs.message_size(self.schedule, self.table.action(made.producer[message]), kind)

        return self.kinds.messages(made).priced(size)

    def bytes_kept(self) -> Kept | None:
        """Activation bytes of each action, where costs know them."""
        costs, schedule = self.costs, self.schedule
        if not _with_memory(costs) or (isinstance(costs, Costs) and costs.activation_bytes == 0):
            return None
        left = getattr(costs, "waiting_for_weights", costs.held_bytes)
        held, kept_input, gradient, waiting = (
            self._by_action(*which, price)
            for which, price in zip(
                self.kinds.kept,
                (
                    lambda s, i: costs.held_bytes(schedule, Action(s, "F", i)),
                    lambda s, i: costs.kept_input_bytes(schedule, Action(s, "F", i)),
                    lambda s, i: costs.message_size(schedule, Action(s + 1, "B", i), "gradient"),
                    lambda s, i: left(schedule, Action(s, "F", i)),
                ),
                strict=True,
            )
        )
        there = None if part_in(schedule) is None else tuple(self._carried(costs))
        return Kept(held, kept_input, gradient, waiting, self.kinds.recomputed, there)

    def _carried(self, costs: MemoryModel) -> Iterator[tuple[int, int, int, float, float]]:
        """What is there when a part of an endless table begins, and what stays when it ends, to be recomputed later."""
        table, later = self.table, []
        if "R" in table.ops:
            there, again = table.op == F, table.pairs("R")
            columns = (column[there].tolist() for column in (table.device, table.stage, table.microbatch))
            later = [one for one in zip(*columns, strict=True) if one[1:] not in again]
        for device, stage, microbatch in (*carried(self.schedule), *later):
            forward = Action(stage, "F", microbatch)
            kept_input = costs.kept_input_bytes(self.schedule, forward)
            held = kept_input if "R" in self.schedule.ops else costs.held_bytes(self.schedule, forward)
            yield device, stage, microbatch, held, kept_input

    def _by_action(self, actions: Array, groups: Groups, price: Callable[[int, int], float]) -> Array:
        """``price`` of the stage and micro-batch of some actions, NaN for the others."""
        stage, microbatch = self.table.stage[actions], self.table.microbatch[actions]
        found = np.full(len(self.table), np.nan)
        found[actions] = groups.priced(lambda k: price(int(stage[k]), int(microbatch[k])))
        return found


def _by_kind(costs: CostModel) -> TypeGuard[CostsByKind]:
    return "cost_of" in vars(type(costs))  # a model that inherits it may know more of a slot


def _with_memory(costs: CostModel) -> TypeGuard[MemoryModel]:
    return hasattr(costs, "held_bytes") and hasattr(costs, "kept_input_bytes")
