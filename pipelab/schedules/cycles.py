"""Rings of waiting: slots of different devices that each wait for the next.

Two kinds of event wait for one another. A device *enters* a slot when it is done with the slot before and may go on,
and then takes messages; it *runs* the slot once all it needs is there::

    run(r, k)    waits for  enter(r, k), and the run of every slot of another device that supplies it
    enter(r, k)  waits for  run(r, k-1); with bounded sends also for messages that it sent before to be taken

Where sends are batched, run(r, k) waits for those messages, not enter(r, k).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from pipelab.schedules.dependencies import Edge, SlotGraph
from pipelab.schedules.wire import wire_waits

__all__ = ["Wait", "rings"]

Event = tuple[int, int, int]
ENTER, RUN = 0, 1


@dataclass(frozen=True, slots=True)
class Wait:
    """The slot at (device, position) waits for the one at (other_device, other_position), because of ``reason``."""

    device: int
    position: int
    other_device: int
    other_position: int
    reason: Edge | str


def rings(graph: SlotGraph, outstanding: int | None, *, batched: bool = False) -> Iterator[list[Wait]]:
    """One shortest ring of waits for each knot of slots that wait for one another; linear in the actions.

    A slot that stands before what it needs *on its own device* is not looked at here: that is a wrong order, whatever
    the others do.
    """
    waits: dict[Event, list[Event]] = {}
    why: dict[tuple[Event, Event], Edge | str] = {}
    for device, program in enumerate(graph.programs):
        for position in range(len(program)):
            enter, run = (device, position, ENTER), (device, position, RUN)
            waits[enter] = [(device, position - 1, RUN)] if position else []
            waits[run] = [enter]
            for edge in graph.edges_into(device, position):
                if edge.source.device != device:
                    source = (*edge.source.slot, RUN)
                    waits[run].append(source)
                    why[run, source] = edge
    if outstanding is not None:
        for slot, other, entering, reason in wire_waits(graph, outstanding, batched=batched):
            held, target = (*slot, RUN if batched else ENTER), (*other, ENTER if entering else RUN)
            waits[held].append(target)
            why.setdefault((held, target), reason)
    for members in _knots(waits):
        if len(members) > 1:
            ring = _shortest_ring(waits, set(members))
            yield [
                Wait(*node[:2], *other[:2], why[node, other])
                for node, other in pairwise([*ring, ring[0]])
                if (node, other) in why
            ]


def _shortest_ring(waits: Mapping[Event, list[Event]], inside: set[Event]) -> list[Event]:
    start = min(inside, key=lambda node: (node[1], node[0], -node[2]))
    parent: dict[Event, Event] = {}
    frontier = [start]
    while frontier:
        following = []
        for node in frontier:
            for other in waits[node]:
                if other == start:
                    ring = [node]
                    while ring[-1] != start:
                        ring.append(parent[ring[-1]])
                    return ring[::-1]
                if other in inside and other not in parent:
                    parent[other] = node
                    following.append(other)
        frontier = following
    raise AssertionError("a knot has a ring through each of its slots")


def _knots(waits: Mapping[Event, list[Event]]) -> Iterator[list[Event]]:
    """Tarjan's strongly connected components, without recursion (tables are long)."""
    index: dict[Event, int] = {}
    low: dict[Event, int] = {}
    stack: list[Event] = []
    on_stack: set[Event] = set()
    for root in waits:
        if root in index:
            continue
        work = [(root, iter(waits[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, rest = work[-1]
            for other in rest:
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(waits[other])))
                    break
                if other in on_stack:
                    low[node] = min(low[node], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    members: list[Event] = []
                    while not members or members[-1] != node:
                        members.append(stack.pop())
                        on_stack.discard(members[-1])
                    yield members
