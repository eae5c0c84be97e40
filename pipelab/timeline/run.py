"""The arrays beneath a timeline: when each slot of a table ran, and what its figures are reckoned from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from pipelab.schedules.compiled import Compiled
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.table import Array, B, F, I, R, Table, U, W
from pipelab.schedules.updates import carried
from pipelab.timeline.spans import Holding, Message, Span

__all__ = ["Kept", "Run", "Sent"]

Steps: TypeAlias = tuple[Array, Array, Array]


@dataclass(frozen=True, eq=False)
class Sent:
    """The messages, in the order in which ``compiled`` numbers them."""

    compiled: Compiled
    arrived: Array
    size: Array


@dataclass(frozen=True, eq=False)
class Kept:
    """Bytes by action, NaN for actions that have none.

    ``held`` from an F, or an R, until the backward is over; ``kept_input`` from an F until its R; ``gradient`` while a
    B or an I runs that starts from it. From an I to its W it is ``waiting`` instead of what was held. ``recomputed``:
    whether there is an R of the action's stage and micro-batch.
    ``carried`` is for a part of an endless table: what was there when it began, or comes and keeps only its input. It
    has (device, stage, micro-batch, bytes held, bytes of its input). What is not finished stays.
    """

    held: Array
    kept_input: Array
    gradient: Array
    waiting: Array
    recomputed: Array
    carried: tuple[tuple[int, int, int, float, float], ...] | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """``start`` and ``end`` of each slot of ``table``; slots that are ``beside`` the makespan are updates alone."""

    table: Table
    start: Array
    end: Array
    beside: Array
    sent: Sent | None = None
    kept: Kept | None = None

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[Span]]) -> Run:
        """The arrays of spans, given device by device."""
        table = Table.of_programs([[span.slot for span in row] for row in rows])
        times = np.array([(span.start, span.end) for row in rows for span in row]).reshape(-1, 2)
        return cls(table, times[:, 0], times[:, 1], np.zeros(len(times), bool))

    @classmethod
    def of_table(
        cls, table: Table, start: Array, end: Array, sent: Sent | None = None, kept: Kept | None = None
    ) -> Run:
        """The arrays of a table's slots, in its order."""
        beside = np.zeros(len(start), bool)
        if "U" in table.ops:
            beside[:] = True
            beside[table.slot[table.op != U]] = False
        return cls(table, start, end, beside, sent, kept)

    # ---- figures -------------------------------------------------------------------------------------------------

    @property
    def first_start(self) -> float:
        """0 where nothing ran."""
        return 0.0 if self.beside.all() else self.start[~self.beside].min().item()

    @property
    def last_end(self) -> float:
        """0 where nothing ran."""
        return 0.0 if self.beside.all() else self.end[~self.beside].max().item()

    def busy(self) -> tuple[float, ...]:
        """Busy time of each device."""
        durations = ((self.end - self.start) * ~self.beside).tolist()
        bounds = self.table.slot_bounds.tolist()
        return tuple(sum(durations[begin:end]) for begin, end in itertools.pairwise(bounds))

    def in_flight(self, schedule: Schedule, sequences: float, *, for_ever: bool) -> tuple[Steps, ...]:
        """(time, shares, sequences) on each device, as ``Timeline.in_flight`` says, but for the dust of rounding.

        ``for_ever``: what has no backward is held forever. A part of an endless table holds from its start what came in
        before.
        """
        table, (forward, backward) = self.table, schedule.lives(self.table)
        start, end = self.start[table.slot], self.end[table.slot]
        done = backward >= 0
        stop = np.where(done, end[backward], math.inf if for_ever else end[forward])
        held = (forward >= 0) & (start[forward] < stop)
        comes, goes = forward[held], np.where(done, backward, forward)[held & (stop < math.inf)]
        which, t = np.concatenate([goes, comes]), np.concatenate([end[goes], start[comes]])
        sign = np.repeat([-1.0, 1.0], [len(goes), len(comes)])
        whose = np.concatenate([forward[held & (stop < math.inf)], forward[held]])
        device, microbatch = table.device[whose], table.microbatch[whose]
        before = np.array(carried(schedule), np.int64).reshape(-1, 3)
        if len(before):
            late = backward[(forward < 0) & done]
            device = np.concatenate([device, table.device[late], before[:, 0]])
            microbatch = np.concatenate([microbatch, table.microbatch[late], before[:, 2]])
            t = np.concatenate([t, end[late], np.full(len(before), self.first_start)])
            sign = np.concatenate([sign, np.repeat([-1.0, 1.0], [len(late), len(before)])])
            order = np.lexsort((microbatch, sign, t, device))
        else:
            order = _ordered(device, t, sign, microbatch, which)
        shares = sign[order] * schedule.share
        weighed = shares * np.array(schedule.weights)[microbatch[order]] * sequences
        bounds = np.searchsorted(device[order], np.arange(table.devices + 1)).tolist()
        rows = [slice(begin, end) for begin, end in itertools.pairwise(bounds)]
        return tuple((t[order[row]], np.cumsum(shares[row]), np.cumsum(weighed[row])) for row in rows)

    def bytes_held(self) -> tuple[tuple[Array, Array], ...]:
        """(time, bytes from then on) on each device.

        A micro-batch is kept from its F to the last of its B or W, from I on what W needs; one that is recomputed only
        as its input until its R. The gradient that a backward starts from is there while it runs.
        """
        assert self.kept is not None
        table, kept, key, (forward, backward) = self.table, self.kept, self.table.keys, self.table.lives
        start, end = self.start[table.slot], self.end[table.slot]
        over = end[np.where(backward >= 0, backward, forward)]
        if kept.carried is not None:
            over = np.where(backward >= 0, over, math.inf)
        whole = table.last((table.op == R) | ((table.op == F) & ~kept.recomputed))
        whole = whole[whole >= 0]
        waiting = whole[(table.op[whole] == R) & (forward[key[whole]] >= 0)]
        uses = (~np.isnan(kept.gradient)).nonzero()[0]
        half = table.last(table.op == I)[key[whole]]
        split, half = whole[half >= 0], half[half >= 0]
        come = np.concatenate([end[half], start[uses], start[whole], start[forward[key[waiting]]]])
        gone = np.concatenate([over[key[split]], end[uses], over[key[whole]], start[waiting]])
        more = kept.waiting[half] - kept.held[split]  # or less: once I is over
        size = np.concatenate([more, kept.gradient[uses], kept.held[whole], kept.kept_input[waiting]])
        device = table.device[np.concatenate([half, uses, whole, waiting])]
        begins = np.arange(len(size)) >= len(half)
        if kept.carried:
            there = np.array(list(self._carried(kept.carried))).T
            columns = zip((device, come, gone, size), there, strict=True)
            device, come, gone, size = (np.concatenate(pair) for pair in columns)
            begins = np.append(begins, np.ones(len(size) - len(begins), bool))
        t, change, device = np.concatenate([gone, come]), np.concatenate([-size, size]), np.tile(device, 2)
        begins = np.append(np.zeros(len(size), bool), begins)
        order = np.lexsort((change, begins, t, device))
        order = order[t[order] < math.inf]
        bounds = np.searchsorted(device[order], np.arange(table.devices + 1)).tolist()
        found = []
        for begin, end in itertools.pairwise(bounds):
            row = order[begin:end]
            time, value = t[row], np.maximum(np.cumsum(change[row]), 0.0)
            if len(half) and len(row):  # what an I lets go of and what it leaves are one step
                later = (time[1:] != time[:-1]) | begins[row][1:]
                time, value = (column[np.append(later, True)] for column in (time, value))
            found.append((time, value))
        return tuple(found)

    def _carried(
        self, carried: Sequence[tuple[int, int, int, float, float]]
    ) -> Iterator[tuple[float, float, float, float]]:
        """(device, from when, until when, bytes) of what was there when a part began: whole, or as its input alone."""
        table = self.table
        here: dict[tuple[int, int, int], list[int]] = {}
        columns = (column.tolist() for column in (table.device, table.stage, table.microbatch))
        for k, key in enumerate(zip(*columns, strict=True)):
            here.setdefault(key, []).append(k)
        for device, stage, microbatch, held, kept_input in carried:
            actions = here.get((device, stage, microbatch), [])
            at = {int(table.op[k]): int(table.slot[k]) for k in actions}
            begin = self.start[at[F]].item() if F in at else self.first_start
            if R in at:
                yield device, begin, self.start[at[R]].item(), kept_input
                continue
            last = max((at[op] for op in at if B <= op <= W), default=None)
            yield device, begin, math.inf if last is None else self.end[last].item(), held

    # ---- as objects ------------------------------------------------------------------------------------------------

    def spans(self, schedule: Schedule) -> tuple[Span, ...]:
        """One a slot, device by device."""
        return self._spans(schedule, (~self.beside).nonzero()[0])

    def updates(self, schedule: Schedule) -> tuple[Span, ...]:
        """What is beside the makespan, in the order in which it could run."""
        if self.sent is None or not self.beside.any():
            return ()
        order = self.sent.compiled.order
        return self._spans(schedule, order[self.beside[order]])

    def _spans(self, schedule: Schedule, which: Array) -> tuple[Span, ...]:
        slots = [slot for program in schedule.programs for slot in program]
        devices, begin = self.table.slot_device[which], self.table.slot_bounds
        positions = (which - begin[devices]).tolist()
        chosen = [slots[k] for k in which.tolist()]
        times = (self.start[which].tolist(), self.end[which].tolist())
        return tuple(map(Span, devices.tolist(), positions, chosen, *times))

    def messages(self) -> tuple[Message, ...]:
        """In the order in which they were sent, and arrived."""
        if self.sent is None:
            return ()
        made, table = self.sent.compiled, self.table
        sent = self.end[table.slot[made.producer]]
        order = np.lexsort((self.sent.arrived, sent))
        producer, consumer = made.producer[order], made.consumer[order]
        columns = (
            ["activation" if op == F else "gradient" for op in table.op[consumer].tolist()],
            table.actions(producer),
            table.actions(consumer),
            *(column.tolist() for column in (table.device[producer], table.device[consumer], sent[order])),
            *(column[order].tolist() for column in (self.sent.arrived, self.sent.size)),
        )
        return tuple(map(Message, *columns))

    def holdings(self) -> tuple[Holding, ...]:
        """Of each device, where costs know them."""
        if self.kept is None:
            return ()
        return tuple(
            Holding(device, tuple(zip(t.tolist(), held.tolist(), strict=True)))
            for device, (t, held) in enumerate(self.bytes_held())
        )

    def peak_bytes(self) -> tuple[float, ...]:
        """The most of :meth:`bytes_held` on each device; empty where costs do not know them."""
        if self.kept is None:
            return ()
        return tuple(held.max(initial=0.0).item() for _, held in self.bytes_held())


def _ordered(device: Array, t: Array, sign: Array, microbatch: Array, action: Array) -> Array:
    """By device and time; at equal times what ends is let go first. The order of the table is tried before sorting."""
    order = np.empty(int(action.max(initial=-1)) + 1, np.int64)
    order[action] = np.arange(len(action))
    order = order[np.bincount(action, minlength=len(order)) > 0]
    a, b = order[:-1], order[1:]
    later = (device[a] < device[b]) | (t[a] < t[b])
    if len(order) == len(action) and later.all():
        return order
    return np.lexsort((microbatch, sign, t, device))
