"""A table compiled for whoever walks through it: who needs whom, as numbers, in an order in which all can run.

The rules are those of ``dependencies.py``, said once more for whole arrays. :func:`resolve` answers for sound tables
alone, so it is the quick half of the checker. The function :func:`compiled` also takes tables that are not sound. It
compiles those from the graph that explains them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from pipelab.schedules.action import Updating
from pipelab.schedules.dependencies import LOCAL, SlotGraph
from pipelab.schedules.table import OP_NAMES, Array, B, F, I, Table, U, W

__all__ = ["Compiled", "compiled", "resolve"]


@dataclass(frozen=True, eq=False)
class Compiled:
    """Slots in an order in which all can run, and the messages between them.

    ``order[n]`` is the slot that comes n-th: none comes before what it needs, and what waits forever is left out.
    Messages are numbered as they are sent, in that order. ``producer`` and ``consumer`` are actions. ``sender[k]`` is
    the place in the order of the slot that sends message k, ``channel[k]`` the number of its channel.
    ``need[n]`` is the message that the n-th slot needs, -1 for none, -2 where it needs several, ``several[n]``.
    ``apart[n]`` are places in the order of slots of other devices that the n-th waits for without a message (in no
    sound table).
    """

    table: Table
    order: Array
    producer: Array
    consumer: Array
    sender: Array
    channel: Array
    need: Array
    several: Mapping[int, tuple[int, ...]]
    apart: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        """How many channels messages go by."""
        return int(self.channel.max(initial=-1)) + 1

    @cached_property
    def device(self) -> Array:
        """Of the slots, in this order."""
        return self.table.slot_device[self.order]

    @cached_property
    def source(self) -> Array:
        """Like ``need``, but the place in the order of the slot that sends it."""
        return np.where(self.need >= 0, np.append(self.sender, 0)[self.need], self.need)


def resolve(
    table: Table, placement: Sequence[Sequence[int]], microbatches: int, updating: Updating | None = None
) -> Compiled | None:
    """``table`` compiled if it is sound; None if anything is wrong with it."""
    stages = len(placement)
    if not 0 < stages * microbatches <= len(table) or not _known(table, placement, microbatches):
        return None  # a sound table has an F for each
    at = np.full((len(OP_NAMES), stages, microbatches), -1, np.int32)
    everything = np.arange(len(table), dtype=np.int32)
    at[table.op, table.stage, table.microbatch] = everything
    if (at[table.op, table.stage, table.microbatch] != everything).any() or not _complete(at):
        return None  # something stands in it twice, or is missing
    forward, whole, half_i, half_w, again, update = at
    begins = np.where(whole >= 0, whole, np.where(half_i >= 0, half_i, half_w))  # what the backward begins with
    gradient = np.where(whole >= 0, whole, half_i)
    last = np.where(whole >= 0, whole, half_w)
    kept = [(forward, begins), (forward, again), (again, begins), (half_i, half_w), (last, update)]
    if not all(_in_order(table, source, taker) for source, taker in kept):
        return None
    if (updating is not None or (update >= 0).any()) and not _updated(table, at, placement, updating):
        return None
    supplier = np.full(len(table), -1, np.int32)
    supplier[forward[1:]] = forward[:-1]
    if (begins[0] >= 0).all():
        supplier[begins[:-1]] = gradient[1:]
    consumer = (supplier >= 0).nonzero()[0]
    producer = supplier[consumer]
    apart = table.device[producer] != table.device[consumer]
    if not (producer < consumer)[~apart].all():
        return None
    producer, consumer = producer[apart], consumer[apart]
    order = _order(table, table.slot[producer], table.slot[consumer])
    return _numbered(table, order, producer, consumer) if len(order) == len(table.first) else None


def compiled(graph: SlotGraph, table: Table) -> Compiled:
    """``table`` compiled from its graph: however wrong it is, as far as its slots can run."""
    begin = table.slot_bounds.tolist()
    order = np.array([begin[device] + position for device, position, _ in graph.topological()], dtype=np.int32)
    rank = {slot: n for n, slot in enumerate(order.tolist())}
    first = table.first.tolist()
    producer, consumer = [], []
    apart: dict[int, tuple[int, ...]] = {}
    for device, position, edges in graph.topological():
        n = rank[begin[device] + position]
        for edge in edges:
            source = begin[edge.source.device] + edge.source.position
            if edge.crosses:
                producer.append(first[source] + edge.source.part)
                consumer.append(first[begin[device] + position] + edge.place.part)
            elif edge.kind == LOCAL and edge.source.device != device:
                apart[n] = (*apart.get(n, ()), rank[source])
    pairs = np.array(producer, dtype=np.int32), np.array(consumer, dtype=np.int32)
    by_consumer = np.argsort(pairs[1], kind="stable")
    made = _numbered(table, order, pairs[0][by_consumer], pairs[1][by_consumer])
    made.apart.update(apart)  # type: ignore[attr-defined]
    return made


def _known(table: Table, placement: Sequence[Sequence[int]], microbatches: int) -> bool:
    """Whether every action is one that there is, on a device that holds its stage."""
    numbers = ((table.op, len(OP_NAMES)), (table.stage, len(placement)), (table.microbatch, microbatches))
    if any(found.min() < 0 or found.max() >= limit for found, limit in numbers):
        return False
    home = np.array([devices[0] if devices else -1 for devices in placement])
    away = home[table.stage] != table.device
    if not away.any():
        return True
    homes = [stage * table.devices + device for stage, devices in enumerate(placement) for device in devices]
    return bool(np.isin(table.stage[away] * np.int64(table.devices) + table.device[away], homes).all())


def _complete(at: Array) -> bool:
    """Whether nothing is missing, and no backward is there whole and in halves. ``at``: [op, stage, micro-batch]."""
    there = at >= 0
    if not there[F].all():
        return False
    if not there[1:].any():
        return True  # an evaluation
    halves = there[W] & there[I]
    halves[0] = there[W][0]  # stage 0 may do without I
    return bool((there[B] ^ halves).all()) and not (there[B] & (there[I] | there[W])).any()


def _in_order(table: Table, source: Array, taker: Array) -> bool:
    """Whether what is kept on a device, from one action to another of the same micro-batch, is there in time."""
    pairs = (source >= 0) & (taker >= 0)
    before, after = source[pairs], taker[pairs]
    return bool((before < after).all() and (table.device[before] == table.device[after]).all())


def _updated(table: Table, at: Array, placement: Sequence[Sequence[int]], updating: Updating | None) -> bool:
    """Whether each gradient goes into the update that it belongs to, and each forward's version exists.

    ``at``: [op, stage, micro-batch], of a table in which nothing is missing but updates.
    """
    stages = np.flatnonzero([len(homes) == 1 for homes in placement])
    if not len(stages) or not (at[1:] >= 0).any():
        return True
    order = np.argsort(table.stage, kind="stable")  # stage by stage, each in the order of its device
    is_update = table.op[order] == U
    behind = np.cumsum(is_update) - is_update
    begins = np.searchsorted(table.stage[order], np.arange(len(placement)))
    done = np.empty(len(table), np.int64)
    done[order] = behind - behind[begins][table.stage[order]]  # updates of its stage before each action
    total = np.bincount(table.stage[table.op == U], minlength=len(placement))[stages]
    gradient = np.where(at[B] >= 0, at[B], at[W])[stages]
    number = done[gradient]
    if updating is None:
        wanted, whole = number[:1], total[0]
    else:
        whole, rest = divmod(at.shape[2], updating.every)
        wanted = np.arange(at.shape[2])[None] // updating.every
        if rest:
            return False
    if (total != whole).any() or (number != wanted).any() or (number >= whole).any():
        return False
    there = done[at[F][stages]]
    if updating is None or updating.rule == "newest":
        return True
    used = done[at[F][0]] if updating.rule == "input" else np.maximum(wanted[0] - 1, 0)
    return bool((used <= there).all())


def _order(table: Table, senders: Array, takers: Array) -> Array:
    """The slots in the order of ``SlotGraph.topological``, given who takes messages from whom, by takers."""
    slots = len(table.first)
    several: dict[int, list[int]] = {}
    taker = np.full(slots, -1, np.int32)
    taker[senders] = takers
    many = (np.bincount(senders, minlength=slots) > 1)[senders]
    for slot, other in zip(senders[many].tolist(), takers[many].tolist(), strict=True):
        several.setdefault(slot, []).append(other)
    taker[list(several)] = -2
    heads, ends = table.slot_bounds[:-1], table.slot_bounds[1:]
    occupied = heads < ends
    following = np.arange(1, slots + 1)
    following[ends[occupied] - 1] = slots  # behind the last of a device is nobody: an entry that never runs out
    waits = np.bincount(takers, minlength=slots + 1) + 1
    waits[heads[occupied]] -= 1
    waits[slots] = slots + table.devices + 1
    ready: list[int] = np.sort(heads[occupied][waits[heads[occupied]] == 0]).tolist()
    taking, waiting, behind = taker.tolist(), waits.tolist(), following.tolist()
    for slot in ready:  # grows while it is read
        other = taking[slot]
        if other >= 0:
            waiting[other] -= 1
            if not waiting[other]:
                ready.append(other)
        elif other == -2:
            for other in several[slot]:
                waiting[other] -= 1
                if not waiting[other]:
                    ready.append(other)
        other = behind[slot]
        waiting[other] -= 1
        if not waiting[other]:
            ready.append(other)
    return np.array(ready, np.int32)


def _numbered(table: Table, order: Array, producer: Array, consumer: Array) -> Compiled:
    """Messages, given by consumers, numbered in the order of sending."""
    rank = np.full(len(table.first), -1, np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    sender, taker = rank[table.slot[producer]], rank[table.slot[consumer]]
    p = table.devices
    code = ((table.op[consumer] != F) * p + table.device[producer]) * p + table.device[consumer]
    sent = np.full(len(order), -1, np.int32)
    sent[sender] = np.arange(len(sender), dtype=np.int32)
    sequence: Array = sent[sent >= 0]
    if len(sequence) < len(sender):  # a slot sends several: channel by channel
        sequence = np.lexsort((producer, code, sender))
    channels = np.cumsum(np.bincount(code, minlength=1) > 0) - 1
    taker = taker[sequence]
    need = np.full(len(order), -1, np.int32)
    need[taker] = np.arange(len(taker), dtype=np.int32)
    several: dict[int, tuple[int, ...]] = {}
    many = np.bincount(taker, minlength=len(order)) > 1
    for message in many[taker].nonzero()[0].tolist():
        several[int(taker[message])] = (*several.get(int(taker[message]), ()), message)
    need[list(several)] = -2
    return Compiled(
        table, order, producer[sequence], consumer[sequence], sender[sequence], channels[code[sequence]], need, several
    )
