"""WHEN it ran: spans of a schedule's slots in time, and the figures taken from them.

A prediction and a measurement are both a Timeline, so that they can be laid over each other. A prediction is arrays
(``run.py``), from which spans and messages are made when somebody looks at them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipelab.schedules.action import actions_of
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.updates import part_in
from pipelab.timeline.messages import Overlap, sent_on, tracks
from pipelab.timeline.reasons import Reasons
from pipelab.timeline.spans import Holding, Message, Span

if TYPE_CHECKING:
    from pipelab.timeline.run import Run, Steps

__all__ = ["Timeline"]

CLOCKS = {
    "unit": "unit (costs are given)",
    "device": "device (measured costs, composed as if each stage had its own device)",
    "wall": "wall (what happened on this machine)",
    "predicted": "predicted from costs",
    "drawn": "drawn (the columns of the board)",
}


@dataclass(frozen=True, repr=False)
class Timeline(Reasons):
    """When each slot of ``schedule`` ran, by ``clock``, in ``unit`` ("units" or "s").

    ``sequences`` is the number of sequences in a micro-batch of weight 1 (None where no batch is known).
    ``updates`` are the optimizer's spans, reported beside the makespan. ``holdings`` are activation bytes over time,
    one entry a device, where they are known. ``stash``: whether old versions of the weights were kept, where weights
    change on the way. ``sums``: gradients on their way to and from the replicas of a mesh, on the wall clock.
    """

    schedule: Schedule
    spans: tuple[Span, ...]
    messages: tuple[Message, ...] = field(default_factory=tuple)
    clock: str = "predicted"
    unit: str = "units"
    sequences: float | None = None
    updates: tuple[Span, ...] = field(default_factory=tuple)
    holdings: tuple[Holding, ...] = field(default_factory=tuple)
    note: str = field(default="", compare=False)
    stash: bool = True
    sums: tuple[Message, ...] = ()

    @classmethod
    def of_run(cls, schedule: Schedule, run: Run, *, clock: str, unit: str, sequences: float | None) -> Timeline:
        """The timeline of arrays: spans, messages and the rest of its objects are made when they are looked at."""
        made = cls.__new__(cls)
        made.__dict__.update(schedule=schedule, _run=run, clock=clock, unit=unit, sequences=sequences)
        made.__dict__.update(note="", stash=True, sums=())
        return made

    if not TYPE_CHECKING:  # to a type checker all fields are there

        def __getattr__(self, name: str) -> Any:
            run = self.__dict__.get("_run")
            if run is None or name not in ("spans", "updates", "messages", "holdings"):
                raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
            make = getattr(run, name)
            found = self.__dict__[name] = make(self.schedule) if name in ("spans", "updates") else make()
            return found

    @cached_property
    def _run(self) -> Run:
        """The arrays of what was put together from spans."""
        from pipelab.timeline.run import Run

        return Run.of_rows(self._by_device)

    def __repr__(self) -> str:
        figures = f"makespan {self.makespan:.4g} {self.unit}, bubble {self.bubble_fraction:.1%}"
        return f"Timeline({self.schedule.name}, {figures}, clock {self.clock_name})"

    # ---- figures -------------------------------------------------------------------------------------------------

    @cached_property
    def start(self) -> float:
        """The first start."""
        return self._run.first_start

    @cached_property
    def end(self) -> float:
        """The last end."""
        return self._run.last_end

    @property
    def makespan(self) -> float:
        """First start to last end over all devices; optimizer updates are not part of it."""
        return self.end - self.start

    @cached_property
    def busy(self) -> tuple[float, ...]:
        """Busy time of each device."""
        return self._run.busy()

    @property
    def bubble_fraction(self) -> float:
        """Idle time as a fraction of total device time, idle / (p * makespan): the bubble figure of the course."""
        total = self.schedule.devices * self.makespan
        return 1 - sum(self.busy) / total if total else 0.0

    @property
    def bubble_ratio(self) -> float:
        """Idle time over ideal (busy) time: (p - 1) / m for GPipe and 1F1B (arXiv 1811.06965, 2104.04473)."""
        busy = sum(self.busy)
        return (self.schedule.devices * self.makespan - busy) / busy if busy else 0.0

    @property
    def utilisation(self) -> float:
        """Busy time as a fraction of total device time: 1 - bubble fraction."""
        return 1 - self.bubble_fraction

    @property
    def clock_name(self) -> str:
        """The clock this was read from, in words."""
        name = self.words.clocks.get(self.clock) or CLOCKS.get(self.clock, self.clock)
        return f"{name}, {self.note}" if self.note else name

    def on_device(self, device: int) -> tuple[Span, ...]:
        """The spans of one device, in order."""
        return self._by_device[device]

    @cached_property
    def _by_device(self) -> tuple[tuple[Span, ...], ...]:
        rows: list[list[Span]] = [[] for _ in range(self.schedule.devices)]
        for span in self.spans:
            rows[span.device].append(span)
        return tuple(tuple(sorted(row, key=lambda span: (span.start, span.position))) for row in rows)

    # ---- what is in flight ---------------------------------------------------------------------------------------

    def in_flight(self, device: int) -> tuple[tuple[float, float, float], ...]:
        """What ``device`` holds over time: steps (time, shares, sequences).

        A micro-batch is in flight on a stage from the start of its F to the end of the last of its B or W. Where that
        never runs it is in flight forever (but not in an evaluation, where no device waits for it). It counts 1/v of a
        share (v chunks per device). Without a batch, sequences are counted in micro-batches of weight 1.
        """
        t, shares, sequences = (column.tolist() for column in self._held[device])
        return tuple(zip(t, map(_settle, shares), map(_settle, sequences), strict=True))

    @cached_property
    def _held(self) -> tuple[Steps, ...]:
        evaluated = self.schedule.forward_only and self.clock != "drawn"  # a board may have no backward yet
        size = 1.0 if self.sequences is None else self.sequences
        return self._run.in_flight(self.schedule, size, for_ever=not evaluated)

    @cached_property
    def _peaks(self) -> tuple[tuple[float, float], ...]:
        """The most shares, and the most sequences, in flight on each device."""
        return tuple((_settle(a.max(initial=0.0)), _settle(b.max(initial=0.0))) for _, a, b in self._held)

    @cached_property
    def peak_microbatches(self) -> tuple[float, ...]:
        """The most micro-batches in flight on each device, in full shares (chunks / v)."""
        return tuple(shares for shares, _ in self._peaks)

    @cached_property
    def peak_sequences(self) -> tuple[float, ...]:
        """The most sequences in flight on each device, in full shares."""
        return tuple(sequences for _, sequences in self._peaks)

    @cached_property
    def peak_bytes(self) -> tuple[float, ...]:
        """The most activation bytes held on each device; empty where they are not known."""
        if "holdings" not in self.__dict__:
            return self._run.peak_bytes()
        return tuple(holding.peak for holding in self.holdings)

    # ---- messages ------------------------------------------------------------------------------------------------

    @property
    def message_count(self) -> int:
        """Messages between devices, activations and gradients; of a part of an endless table, all that it sends."""
        if part_in(self.schedule) is not None:
            return sent_on(self.schedule)
        sent = self._run.sent
        return len(self.messages) if sent is None else len(sent.size)

    @property
    def message_bytes(self) -> float:
        """Bytes sent between devices (of a part of an endless table: sent and taken in it)."""
        return sum(message.size for message in self.messages)

    @cached_property
    def overlap(self) -> Overlap:
        """How much of the time that messages are under way the receiving device was at work."""
        return Overlap.of(self.messages, (*self.spans, *self.updates))

    # ---- export --------------------------------------------------------------------------------------------------

    def to_chrome_trace(self) -> str:
        """Chrome trace JSON: opens in Perfetto and in about:tracing. One unit is drawn as one millisecond."""
        scale = 1e6 if self.unit == "s" else 1e3
        events: list[dict[str, object]] = []
        for r in range(self.schedule.devices):
            stages = self.words.stages
            here = ", ".join(stages[s] if stages else str(s) for s in self.schedule.stages_on(r))
            name = f"{self.words.device(r)} (stages {here})"
            events.append({"ph": "M", "name": "process_name", "pid": r, "tid": 0, "args": {"name": name}})
            events.append({"ph": "M", "name": "process_sort_index", "pid": r, "tid": 0, "args": {"sort_index": r}})

        def piece(what: str, cat: str, pid: int, tid: int, begin: float, end: float, **args: object) -> None:
            times = {"ts": (begin - self.start) * scale, "dur": (end - begin) * scale}
            events.append({"ph": "X", "name": what, "cat": cat, "pid": pid, "tid": tid, **times, "args": args})

        for span in (*self.spans, *self.updates):
            cat = "".join(action.op for action in actions_of(span.slot))
            told = {"clock": self.clock, "position": span.position}
            piece(self.words.slot(span.slot), cat, span.device, 0, span.start, span.end, **told)
        for tid, lane, m in tracks((*self.messages, *self.sums), self.schedule.devices):
            track = {"name": f"{self.words.device(lane.device)} {lane.name}"}
            events.append({"ph": "M", "name": "thread_name", "pid": lane.device, "tid": tid, "args": track})
            piece(str(m.producer), m.kind, lane.device, tid, m.sent, m.arrived, bytes=m.size)
        for number, message in enumerate(self.messages):
            common = {"cat": message.kind, "name": message.kind, "id": number, "tid": 0}
            starts = self._starts_of(message)
            # A flow binds to the slice that encloses its time stamp, so it leaves just inside the sender's span.
            left = (message.sent - self.start) * scale - 1e-3
            events.append({"ph": "s", "pid": message.source, "ts": left, **common})
            events.append({"ph": "f", "bp": "e", "pid": message.destination, "ts": starts * scale + 1e-3, **common})
        for holding in self.holdings:
            for t, held in holding.steps:
                ts = (t - self.start) * scale
                args = {"bytes": held}
                events.append({"ph": "C", "name": "activation bytes", "pid": holding.device, "ts": ts, "args": args})
        meta = {"schedule": self.schedule.name, "clock": self.clock_name, "unit": self.unit}
        return json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": meta})

    def _starts_of(self, message: Message) -> float:
        for place in self.graph.places.get(message.consumer, ()):
            span = self.span_at.get(place.slot)
            if span is not None and place.device == message.destination:
                return span.start - self.start
        return message.arrived - self.start

    def figures(self) -> dict[str, object]:
        """The figures as plain data, for JSON."""
        return {
            "clock": self.clock,
            "unit": self.unit,
            "makespan": self.makespan,
            "bubble_fraction": self.bubble_fraction,
            "bubble_ratio": self.bubble_ratio,
            "utilisation": self.utilisation,
            "busy": list(self.busy),
            "peak_microbatches": list(self.peak_microbatches),
            "peak_sequences": list(self.peak_sequences),
            "peak_bytes": list(self.peak_bytes),
            "update": [sum(u.duration for u in self.updates if u.device == r) for r in range(self.schedule.devices)],
            "messages": self.message_count,
            "message_bytes": self.message_bytes,
        }


def _settle(value: float) -> float:
    """Rid sums of shares such as 1/3 of their rounding dust."""
    return round(float(value), 9) + 0.0
