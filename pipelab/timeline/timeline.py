"""WHEN it ran: spans of a schedule's slots in time, and the figures taken from them.

A prediction and a measurement are both a Timeline, so that they can be laid over each other. A prediction is arrays
(``run.py``), from which spans and messages are made when somebody looks at them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipelab.quantities import format_time
from pipelab.schedules.action import Action, actions_of, format_slot
from pipelab.schedules.dependencies import GRADIENT, Edge, SlotGraph
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.updates import part_in
from pipelab.timeline.messages import Overlap, sent_on, tracks
from pipelab.timeline.spans import Gap, Holding, Message, Span

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
class Timeline:
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
        name = CLOCKS.get(self.clock, self.clock)
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

    # ---- why -----------------------------------------------------------------------------------------------------

    @property
    def graph(self) -> SlotGraph:
        """The table with its needs resolved."""
        return self.schedule.graph

    @cached_property
    def span_at(self) -> dict[tuple[int, int], Span]:
        """The span, or update, of the slot at (device, position)."""
        return {(span.device, span.position): span for span in (*self.spans, *self.updates)}

    @cached_property
    def _arrivals(self) -> dict[tuple[Action, int], Message]:
        return {(message.consumer, message.destination): message for message in self.messages}

    def message(self, consumer: Action, device: int) -> Message | None:
        """The message that ``consumer`` needs on ``device``; None if there was none."""
        return self._arrivals.get((consumer, device))

    def time_words(self, time: float) -> str:
        """A time after the start, in words: "t = 7", or "12.3 ms"."""
        return f"t = {time:.4g}" if self.unit == "units" else format_time(time, self.unit)

    def inputs(self, span: Span) -> Iterator[tuple[float, Edge]]:
        """(time from which it was there, edge) for each thing that a span took from elsewhere."""
        for edge in self.graph.edges_into(span.device, span.position):
            if edge.inside_slot or edge.source.device == span.device:
                continue
            message = self._arrivals.get((edge.action, span.device))
            source = self.span_at.get(edge.source.slot)
            if message is not None:
                yield message.arrived, edge
            elif source is not None:
                yield source.end, edge

    def critical_path(self) -> tuple[Span, ...]:
        """The chain of spans that fixed the makespan: each began when the one before it let it, the last ended last."""
        if not self.spans:
            return ()
        span = max(self.spans, key=lambda s: (s.end, -s.device))
        path = [span]
        while True:
            before = self.span_at.get((span.device, span.position - 1))
            candidates = [(before.end, 1, before)] if before is not None else []
            for arrived, edge in self.inputs(span):
                candidates.append((arrived, 0, self.span_at[edge.source.slot]))
            if not candidates:
                return tuple(reversed(path))
            span = max(candidates, key=lambda c: (c[0], c[1]))[2]
            path.append(span)

    def gaps(self, device: int | None = None, tolerance: float = 1e-9) -> tuple[Gap, ...]:
        """All idle time longer than ``tolerance``, each with the reason."""
        devices = range(self.schedule.devices) if device is None else (device,)
        return tuple(gap for r in devices for gap in self._gaps_on(r, tolerance))

    def _gaps_on(self, device: int, tolerance: float) -> Iterator[Gap]:
        free = self.start
        row = self.on_device(device)
        for span in row:
            if span.start - free > tolerance:
                yield self._why(span, free)
            free = max(free, span.end)
        if self.end - free > tolerance:
            last = max(self.spans, key=lambda s: s.end)
            done = f"device {device} has finished its part" if row else f"device {device} has nothing to run"
            own = [format_slot(u.slot) for u in self.updates if u.device == device and free <= u.start < self.end]
            done += f" and updates its weights, {', '.join(own)}, beside the makespan" if own else ""
            if (here := part_in(self.schedule)) and here.end[device] < len(here.whole.programs[device]):
                done = f"what device {device} runs next belongs to the next step"
            sentence = f"{done}; device {last.device} runs on until {format_slot(last.slot)}"
            yield Gap(device, free, self.end, "drain", None, last.device, sentence)

    def _why(self, span: Span, free: float) -> Gap:
        """Why ``span`` did not start when its device was free."""
        inputs = sorted(self.inputs(span), key=lambda pair: pair[0])
        what = format_slot(span.slot)
        update = self._update_before(span)
        if update is not None and (not inputs or inputs[-1][0] < update.end):
            sentence = f"device {span.device} updates its weights, {format_slot(update.slot)}, beside the makespan"
            return Gap(span.device, free, span.start, "update", actions_of(update.slot)[0], span.device, sentence)
        if not inputs or inputs[-1][0] <= free:
            late = "it was placed here" if self.clock == "drawn" else "the machine was busy elsewhere"
            sentence = f"device {span.device} had all it needed for {what}, but {late}"
            return Gap(span.device, free, span.start, "wait", None, None, sentence)
        edge = inputs[-1][1]
        source = self.span_at[edge.source.slot]
        gap = (span.device, free, span.start)
        who = f"device {span.device} waits for {edge.supplier} from device {source.device}"
        if source.end <= free:
            message = self._arrivals.get((edge.action, span.device))
            if message is not None and message.sent > free:
                sent = self.time_words(message.sent - self.start)
                sentence = f"{who}: computed, but sent only at {sent}; that machine was busy elsewhere"
                return Gap(*gap, "wait", edge.supplier, source.device, sentence)
            sentence = f"{who}: it is on its way, the link takes until {self.time_words(inputs[-1][0] - self.start)}"
            return Gap(*gap, "link", edge.supplier, source.device, sentence)
        if edge.kind != GRADIENT and span.position == 0:
            here = part_in(self.schedule)
            cut = here is not None and here.begin[span.device] > 0
            filling = "what it runs before belongs to the step before" if cut else "the pipeline is still filling"
            return Gap(*gap, "fill", edge.supplier, source.device, f"{who}: {filling}")
        return Gap(*gap, "wait", edge.supplier, source.device, f"{who}, {self._doing(source, free)}")

    def _update_before(self, span: Span) -> Span | None:
        before = self.span_at.get((span.device, span.position - 1))
        return before if before is not None and all(a.op == "U" for a in actions_of(before.slot)) else None

    def _doing(self, source: Span, at: float) -> str:
        """The span that the device of ``source`` runs at time ``at``, before it gets to ``source``."""
        row = self.on_device(source.device)
        everything = (*row, *(span for span in self.updates if span.device == source.device))
        current = next((span for span in everything if span.start <= at < span.end), None)
        if current is not None and all(action.op == "U" for action in actions_of(current.slot)):
            return f"which updates its weights ({format_slot(current.slot)})"
        if current is not None and current.position == source.position:
            return "which is running it"
        before = self.span_at.get((source.device, source.position - 1))
        free_from = at if before is None else max(at, before.end)
        blocked = max(self.inputs(source), key=lambda pair: pair[0], default=None)
        if current is None or source.start - free_from > free_from - at:  # it idles longer than it works until then
            if blocked is not None and blocked[0] > free_from:
                return f"which has to wait first, for {blocked[1].supplier} from device {blocked[1].source.device}"
            return "which is idle too"
        first_backward = next((s.position for s in row if any(a.op in "BIW" for a in actions_of(s.slot))), len(row))
        if current.position < first_backward:
            return f"which still runs forwards ({format_slot(current.slot)})"
        return f"which runs {format_slot(current.slot)} first"

    # ---- export --------------------------------------------------------------------------------------------------

    def to_chrome_trace(self) -> str:
        """Chrome trace JSON: opens in Perfetto and in about:tracing. One unit is drawn as one millisecond."""
        scale = 1e6 if self.unit == "s" else 1e3
        events: list[dict[str, object]] = []
        for r in range(self.schedule.devices):
            name = f"device {r} (stages {', '.join(map(str, self.schedule.stages_on(r)))})"
            events.append({"ph": "M", "name": "process_name", "pid": r, "tid": 0, "args": {"name": name}})
            events.append({"ph": "M", "name": "process_sort_index", "pid": r, "tid": 0, "args": {"sort_index": r}})

        def piece(what: str, cat: str, pid: int, tid: int, begin: float, end: float, **args: object) -> None:
            times = {"ts": (begin - self.start) * scale, "dur": (end - begin) * scale}
            events.append({"ph": "X", "name": what, "cat": cat, "pid": pid, "tid": tid, **times, "args": args})

        for span in (*self.spans, *self.updates):
            cat = "".join(action.op for action in actions_of(span.slot))
            told = {"clock": self.clock, "position": span.position}
            piece(format_slot(span.slot), cat, span.device, 0, span.start, span.end, **told)
        for tid, lane, m in tracks((*self.messages, *self.sums), self.schedule.devices):
            track = {"name": f"device {lane.device} {lane.name}"}
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
