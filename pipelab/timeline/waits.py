"""What each slot of a timeline waited for, what waits for it, and what was ready at any time. Pure Python.

A slot is *ready* once all that it needs is there, whether or not its device is free::

    ready(slot) = the latest of: the end of what it needs on its own device, the arrival of each message it needs
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pipelab.schedules.action import Action, actions_of
from pipelab.schedules.dependencies import LOCAL, SPACE, TURN
from pipelab.timeline.spans import Span
from pipelab.timeline.timeline import Timeline

__all__ = ["Supply", "Wait", "Waits"]

_CLOSE = 1e-9  # of the makespan: times nearer than that are the same


@dataclass(frozen=True, slots=True)
class Supply:
    """One thing that a span took: ``supplier``, made by the span at index ``source``, there from ``arrived`` on.

    ``kind`` is "activation", "gradient" or "local" (kept on the same device); a message left its device at ``sent``. In
    a flow it may be "space" (its end made room) or "turn" (others had to begin before).
    """

    supplier: Action
    source: int
    kind: str
    sent: float
    arrived: float


@dataclass(frozen=True, slots=True)
class Wait:
    """One span and its neighbours, as indices into :attr:`Waits.spans`.

    ``ready``: when all it needed was there. ``cause`` is what let it start when it did. "start": nothing came before
    it. "input": the last thing it needed came. "device": its device became free. In "machine" it had all, and its
    device was free, but the machine was busy elsewhere. ``takers``: who takes what it made.
    """

    span: Span
    ready: float
    supplies: tuple[Supply, ...]
    cause: str
    takers: tuple[int, ...]


class Waits:
    """The waits of all spans of a timeline, in the order of ``timeline.spans``."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline, self.words = timeline, timeline.words
        self.spans = timeline.spans
        self._index = {(span.device, span.position): k for k, span in enumerate(self.spans)}
        self._near = _CLOSE * timeline.makespan

    @cached_property
    def all(self) -> tuple[Wait, ...]:
        """One entry a span."""
        supplies = [self._supplies(span) for span in self.spans]
        takers: list[list[int]] = [[] for _ in self.spans]
        for k, found in enumerate(supplies):
            for source in dict.fromkeys(supply.source for supply in found):
                takers[source].append(k)
        return tuple(
            self._wait(span, found, tuple(mine)) for span, found, mine in zip(self.spans, supplies, takers, strict=True)
        )

    def ready_at(self, time: float) -> tuple[Wait, ...]:
        """What could start at ``time``: all it needs is there, and it has not started before."""
        return tuple(w for w in self.all if w.ready <= time + self._near and w.span.start >= time - self._near)

    def running_at(self, time: float) -> tuple[Wait, ...]:
        """What runs at ``time``, from its start to just before its end."""
        return tuple(w for w in self.all if w.span.start <= time + self._near and time + self._near < w.span.end)

    @cached_property
    def moments(self) -> tuple[float, ...]:
        """The times at which something starts or ends, in order; what is nearer than rounding counts once."""
        found: list[float] = []
        for time in sorted({t for span in self.spans for t in (span.start, span.end)}):
            if not found or time - found[-1] > self._near:
                found.append(time)
        return tuple(found)

    def sentence(self, wait: Wait) -> str:
        """What a span is, what it took, what let it start and who takes what it made."""
        return " ".join(filter(None, (self._what(wait), self._took(wait), self._began(wait), self._handed_on(wait))))

    # ---- made of ---------------------------------------------------------------------------------------------------

    def _supplies(self, span: Span) -> tuple[Supply, ...]:
        found = []
        for edge in self.timeline.graph.edges_into(span.device, span.position):
            source = self._index.get(edge.source.slot)
            if edge.inside_slot or source is None:
                continue
            message = self.timeline.message(edge.action, span.device) if edge.kind != LOCAL else None
            kind = edge.kind if edge.crosses or edge.kind in (SPACE, TURN) else LOCAL
            made = self.spans[source].end
            sent, arrived = (made, made) if message is None else (message.sent, message.arrived)
            found.append(Supply(edge.supplier, source, kind, sent, arrived))
        return tuple(found)

    def _wait(self, span: Span, supplies: tuple[Supply, ...], takers: tuple[int, ...]) -> Wait:
        start = self.timeline.start
        comes = self.words.comes(actions_of(span.slot)[0])
        ready = max([supply.arrived for supply in supplies] + [start if comes is None else comes])
        before = self.timeline.span_at.get((span.device, span.position - 1))
        free = start if before is None else before.end
        latest = max(ready, free)
        if span.start - latest > self._near:
            cause = "machine"
        elif latest <= start + self._near:
            cause = "start"
        else:
            cause = "input" if ready > free + self._near else "device"
        return Wait(span, ready, supplies, cause, takers)

    def _at(self, time: float) -> str:
        return self.timeline.time_words(time - self.timeline.start)

    def _what(self, wait: Wait) -> str:
        span = wait.span
        parts = [self.words.in_full(action) for action in actions_of(span.slot)]
        times = f"{self._at(span.start)} to {self._at(span.end)}"
        what = f"{self.words.slot(span.slot)}: {' and '.join(parts)}"
        return f"{what}, on {self.words.device(span.device)}, {times}."

    def _took(self, wait: Wait) -> str:
        told = []
        for supply in wait.supplies:
            source, name = self.spans[supply.source], self.words.action(supply.supplier)
            if supply.kind == LOCAL:
                told.append(f"what {name} kept here")
            elif supply.kind not in (SPACE, TURN):
                where = self.words.device(source.device)
                told.append(f"{name} from {where} (there at {self._at(supply.arrived)})")
        return f"Takes {' and '.join(told) or self.words.given(actions_of(wait.span.slot)[0])}."

    def _began(self, wait: Wait) -> str:
        if wait.cause == "input":
            last = max(wait.supplies, key=lambda supply: supply.arrived, default=None)
            if last is None or last.arrived < wait.ready:
                return f"Started when {self.words.given(actions_of(wait.span.slot)[0])} came."
            how = {SPACE: "was over and made room", TURN: "was over: others had to begin first"}
            return f"Started when {self.words.action(last.supplier)} {how.get(last.kind, 'came')}."
        if wait.cause == "device":
            before = self.timeline.span_at[wait.span.device, wait.span.position - 1]
            early = wait.span.start - wait.ready
            ready = f"; ready since {self._at(wait.ready)}" if early > self._near else ""
            return f"Started when {self.words.slot(before.slot)} was over on its {self.words.row}{ready}."
        if wait.cause == "machine":
            late = "it was placed here" if self.timeline.clock == "drawn" else "the machine was busy elsewhere"
            return f"It had all it needed earlier: {late}."
        return ""

    def _handed_on(self, wait: Wait) -> str:
        if not wait.takers:
            return "Nothing waits for it."
        told = [
            f"{self.words.slot(self.spans[k].slot)} on {self.words.device(self.spans[k].device)}"
            if self.spans[k].device != wait.span.device
            else f"{self.words.slot(self.spans[k].slot)} here"
            for k in wait.takers
        ]
        return f"Waiting for it: {' and '.join(told)}."
