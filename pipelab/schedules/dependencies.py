"""What an action needs before it can run, and where that comes from.

The rules of a pipeline: who explains, runs or draws reads them here (``compiled.py`` says them for whole arrays)::

    F(s, i)  needs  F(s-1, i)                     an activation, from the device of the stage before
    B(s, i)  needs  F(s, i), and R(s, i) if the table has it; and B or I(s+1, i), a gradient from the stage behind
    I(s, i)  needs  what B needs
    W(s, i)  needs  I(s, i);  where stage 0 has no I, what B needs
    R(s, i)  needs  F(s, i)
    U(s, i)  needs  B or W(s, i)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipelab.errors import ScheduleError
from pipelab.schedules.action import OPS, Action, Slot, actions_of

__all__ = ["Edge", "Need", "Place", "SlotGraph", "earliest_slots", "needs"]

ACTIVATION, GRADIENT, LOCAL = "activation", "gradient", "local"
SPACE, TURN = "space", "turn"  # what a job of a flow may wait for besides: room for its result, its turn


@dataclass(frozen=True, slots=True)
class Need:
    """One thing an action waits for: any one of ``suppliers``, arriving as ``kind``."""

    suppliers: tuple[Action, ...]
    kind: str


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where an action stands: device, position of its slot, and which part of that slot it is."""

    device: int
    position: int
    part: int = 0

    @property
    def slot(self) -> tuple[int, int]:
        """The slot it belongs to: device and position."""
        return (self.device, self.position)


@dataclass(frozen=True, slots=True)
class Edge:
    """One need, met: ``action`` at ``place`` takes ``kind`` from ``supplier`` at ``source``."""

    action: Action
    place: Place
    kind: str
    supplier: Action
    source: Place

    @property
    def crosses(self) -> bool:
        """Whether this is a message between devices."""
        return self.kind != LOCAL and self.source.device != self.place.device

    @property
    def inside_slot(self) -> bool:
        """Whether an earlier part of the same fused slot supplies it."""
        return self.source.slot == self.place.slot and self.source.part < self.place.part


def needs(action: Action, stages: int, table: Mapping[Action, object]) -> tuple[Need, ...]:
    """What ``action`` waits for in a pipeline of ``stages`` stages, given the other actions of its table."""
    s, i = action.stage, action.microbatch
    if action.op not in OPS:
        return ()
    if action.op == "F":
        return (Need((Action(s - 1, "F", i),), ACTIVATION),) if s > 0 else ()
    if action.op == "R":
        return (Need((Action(s, "F", i),), LOCAL),)
    if action.op == "U":
        return (Need((Action(s, "B", i), Action(s, "W", i)), LOCAL),)
    if action.op == "W" and (s > 0 or Action(s, "I", i) in table):
        return (Need((Action(s, "I", i),), LOCAL),)
    found = [Need((Action(s, "F", i),), LOCAL)]
    if Action(s, "R", i) in table:
        found.append(Need((Action(s, "R", i),), LOCAL))
    if s < stages - 1:
        found.append(Need((Action(s + 1, "B", i), Action(s + 1, "I", i)), GRADIENT))
    return tuple(found)


class SlotGraph:
    """A table with its needs resolved, in time linear in its actions.

    ``places[action]`` lists where an action stands (once, in a sound table); ``edges_into(device, position)`` are the
    needs of a slot that something in the table supplies.
    """

    def __init__(self, programs: Sequence[Sequence[Slot | None]], placement: Sequence[Sequence[int]]) -> None:
        self.programs = programs
        self.placement = placement
        self.places: dict[Action, list[Place]] = {}
        self._edges: dict[tuple[int, int], list[Edge]] = {}
        self.kept: dict[str, Any] = {}
        """What others have worked out from this table, by name, so that it is worked out once."""
        for device, program in enumerate(programs):
            for position, slot in enumerate(program):
                for part, action in enumerate(actions_of(slot) if slot is not None else ()):
                    self.places.setdefault(action, []).append(Place(device, position, part))

    def supplier(self, need: Need, place: Place) -> tuple[Action, Place] | None:
        """Who supplies ``need`` to an action at ``place``: on the same device if it can be, or None if nobody does."""
        found = [(action, source) for action in need.suppliers for source in self.places.get(action, ())]
        if not found:
            return None
        return min(found, key=lambda pair: (pair[1].device != place.device, pair[1]))

    def edges_into(self, device: int, position: int) -> list[Edge]:
        """The supplied needs of one slot, in the order of its actions."""
        found = self._edges.get((device, position))
        if found is None:
            found = self._edges[device, position] = list(self._resolve(device, position))
        return found

    def _resolve(self, device: int, position: int) -> Iterator[Edge]:
        slot = self.programs[device][position]
        for part, action in enumerate(actions_of(slot) if slot is not None else ()):
            place = Place(device, position, part)
            for need in needs(action, len(self.placement), self.places):
                pair = self.supplier(need, place)
                if pair is not None:
                    yield Edge(action, place, need.kind, *pair)

    def topological(self) -> Sequence[tuple[int, int, list[Edge]]]:
        """Every slot that can ever start as (device, position, edges into it), none before what it needs.

        What waits forever is left out; a sound table yields every slot.
        """
        return self._order

    @cached_property
    def _order(self) -> Sequence[tuple[int, int, list[Edge]]]:
        return tuple(self._ordered())

    def _ordered(self) -> Iterator[tuple[int, int, list[Edge]]]:
        edges: dict[tuple[int, int], list[Edge]] = {}
        waiting: dict[tuple[int, int], int] = {}
        behind: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for device, program in enumerate(self.programs):
            for position in range(len(program)):
                node = (device, position)
                edges[node] = self.edges_into(device, position)
                before = {edge.source.slot for edge in edges[node] if not edge.inside_slot}
                before.discard((device, position - 1))  # program order already waits for it
                waiting[node] = len(before) + (position > 0)
                for other in before:
                    behind.setdefault(other, []).append(node)
        ready = deque(node for node, count in waiting.items() if count == 0)
        while ready:
            device, position = node = ready.popleft()
            yield device, position, edges[node]
            followers = behind.get(node, [])
            if position + 1 < len(self.programs[device]):
                followers = [*followers, (device, position + 1)]
            for other in followers:
                waiting[other] -= 1
                if waiting[other] == 0:
                    ready.append(other)


def earliest_slots(
    programs: Sequence[Sequence[Slot]], placement: Sequence[Sequence[int]]
) -> tuple[tuple[Slot | None, ...], ...]:
    """Programs laid out on a time grid in which every slot takes one column and starts as early as it can.

    Raises ScheduleError if some slots can never start.
    """
    graph = SlotGraph(programs, placement)
    rows: list[list[Slot | None]] = [[] for _ in programs]
    column: dict[tuple[int, int], int] = {}
    for device, position, edges in graph.topological():
        inputs = (column[edge.source.slot] + 1 for edge in edges if not edge.inside_slot)
        start = max([len(rows[device]), *inputs])
        rows[device] += [None] * (start - len(rows[device]))
        rows[device].append(programs[device][position])
        column[device, position] = start
    stuck = sum(map(len, programs)) - len(column)
    if stuck:
        raise ScheduleError(f"{stuck} actions of this table wait forever; check_schedule says which and why")
    return tuple(map(tuple, rows))
