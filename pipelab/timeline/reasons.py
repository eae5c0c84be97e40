"""Why: what each span of a timeline took, what fixed its makespan, and the reason for all idle time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from pipelab.quantities import format_time
from pipelab.schedules.action import Action, Words, actions_of
from pipelab.schedules.dependencies import GRADIENT, SPACE, Edge, SlotGraph
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.updates import part_in
from pipelab.timeline.spans import Gap, Message, Span

__all__ = ["Reasons"]


class Reasons:
    """The part of a timeline that answers why."""

    schedule: Schedule
    spans: tuple[Span, ...]
    messages: tuple[Message, ...]
    updates: tuple[Span, ...]
    clock: str
    unit: str

    @property
    def start(self) -> float:
        """The first start."""
        raise NotImplementedError

    @property
    def end(self) -> float:
        """The last end."""
        raise NotImplementedError

    def on_device(self, device: int) -> tuple[Span, ...]:
        """The spans of one device, in order."""
        raise NotImplementedError

    @property
    def words(self) -> Words:
        """What things are called."""
        return self.schedule.words

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
        """The chain of spans that fixed the makespan: each began when the one before it let it, the last ended last.

        In a flow it begins where something had to come first, from outside.
        """
        if not self.spans:
            return ()
        span = max(self.spans, key=lambda s: (s.end, -s.device))
        path = [span]
        while True:
            before = self.span_at.get((span.device, span.position - 1))
            candidates = [(before.end, 1, before)] if before is not None else []
            for arrived, edge in self.inputs(span):
                candidates.append((arrived, 0, self.span_at[edge.source.slot]))
            comes = self.words.comes(actions_of(span.slot)[0])
            if not candidates or (comes is not None and comes > max(end for end, *_ in candidates)):
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
            here = self.words.device(device)
            done = f"{here} has finished its part" if row else f"{here} has nothing to run"
            own = [self.words.slot(u.slot) for u in self.updates if u.device == device and free <= u.start < self.end]
            done += f" and updates its weights, {', '.join(own)}, beside the makespan" if own else ""
            if (part := part_in(self.schedule)) and part.end[device] < len(part.whole.programs[device]):
                done = f"what {here} runs next belongs to the next step"
            sentence = f"{done}; {self.words.device(last.device)} runs on until {self.words.slot(last.slot)}"
            yield Gap(device, free, self.end, "drain", None, last.device, sentence)

    def _why(self, span: Span, free: float) -> Gap:
        """Why ``span`` did not start when its device was free."""
        inputs = sorted(self.inputs(span), key=lambda pair: pair[0])
        words, gap = self.words, (span.device, free, span.start)
        here, what = words.device(span.device), words.slot(span.slot)
        update = self._update_before(span)
        if update is not None and (not inputs or inputs[-1][0] < update.end):
            sentence = f"{here} updates its weights, {words.slot(update.slot)}, beside the makespan"
            return Gap(*gap, "update", actions_of(update.slot)[0], span.device, sentence)
        latest = max(inputs[-1][0] if inputs else free, free)
        first = actions_of(span.slot)[0]
        if (comes := words.comes(first)) is not None and comes > latest:
            sentence = f"{here} waits for {words.given(first)}: it comes only at {self.time_words(comes - self.start)}"
            return Gap(*gap, "source", None, None, sentence)
        if latest <= free:
            late = "it was placed here" if self.clock == "drawn" else "the machine was busy elsewhere"
            return Gap(*gap, "wait", None, None, f"{here} had all it needed for {what}, but {late}")
        edge = inputs[-1][1]
        source = self.span_at[edge.source.slot]
        if edge.kind == SPACE:
            sentence = f"{here} has no room for what {what} makes until {words.action(edge.supplier)} is over"
            return Gap(*gap, "space", edge.supplier, source.device, sentence)
        who = f"{here} waits for {words.action(edge.supplier)} from {words.device(source.device)}"
        if source.end <= free:
            message = self._arrivals.get((edge.action, span.device))
            if message is not None and message.sent > free:
                sent = self.time_words(message.sent - self.start)
                sentence = f"{who}: computed, but sent only at {sent}; that machine was busy elsewhere"
                return Gap(*gap, "wait", edge.supplier, source.device, sentence)
            sentence = f"{who}: it is on its way, the link takes until {self.time_words(inputs[-1][0] - self.start)}"
            return Gap(*gap, "link", edge.supplier, source.device, sentence)
        if edge.kind != GRADIENT and span.position == 0:
            part = part_in(self.schedule)
            cut = part is not None and part.begin[span.device] > 0
            filling = "what it runs before belongs to the step before" if cut else words.filling
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
            return f"which updates its weights ({self.words.slot(current.slot)})"
        if current is not None and current.position == source.position:
            return "which is running it"
        before = self.span_at.get((source.device, source.position - 1))
        free_from = at if before is None else max(at, before.end)
        blocked = max(self.inputs(source), key=lambda pair: pair[0], default=None)
        if current is None or source.start - free_from > free_from - at:  # it idles longer than it works until then
            if blocked is not None and blocked[0] > free_from:
                other, where = blocked[1].supplier, blocked[1].source.device
                return f"which has to wait first, for {self.words.action(other)} from {self.words.device(where)}"
            return "which is idle too"
        first_backward = next((s.position for s in row if any(a.op in "BIW" for a in actions_of(s.slot))), len(row))
        if current.position < first_backward:
            return self.words.first(current.slot)
        return f"which runs {self.words.slot(current.slot)} first"
