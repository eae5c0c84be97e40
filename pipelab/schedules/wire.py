"""The wire: which messages a table sends, in which order, and who waits when sends block.

There is one channel per (kind, source, destination). A device sends in the order of its program, and the receiver
takes messages in that order: a slot that needs message k first takes all up to k.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipelab.schedules.action import Action
from pipelab.schedules.dependencies import SlotGraph

__all__ = ["Channel", "Route", "routes", "wire_waits"]


@dataclass(frozen=True, slots=True, order=True)
class Channel:
    """One direction of one edge: ``kind`` is "activation" or "gradient"."""

    kind: str
    source: int
    destination: int

    def __str__(self) -> str:
        return f"{self.kind}s {self.source} -> {self.destination}"


@dataclass(frozen=True, slots=True)
class Route:
    """One message: ``producer`` ran in slot ``sent_by`` of the source, ``consumer`` needs it in slot ``needed_by``."""

    producer: Action
    consumer: Action
    sent_by: tuple[int, int]
    needed_by: tuple[int, int]


def routes(graph: SlotGraph) -> dict[Channel, list[Route]]:
    """Every message of the table, per channel, in the order of sending."""
    found: dict[Channel, list[tuple[tuple[int, int], Route]]] = {}
    for device, program in enumerate(graph.programs):
        for position in range(len(program)):
            for edge in graph.edges_into(device, position):
                if edge.crosses:
                    channel = Channel(edge.kind, edge.source.device, device)
                    route = Route(edge.supplier, edge.action, edge.source.slot, edge.place.slot)
                    found.setdefault(channel, []).append(((edge.source.position, edge.source.part), route))
    return {
        channel: [route for _, route in sorted(found[channel], key=lambda pair: pair[0])] for channel in sorted(found)
    }


def wire_waits(graph: SlotGraph, outstanding: int) -> Iterator[tuple[tuple[int, int], tuple[int, int], str]]:
    """The waits that bounded channels add: (slot that waits, slot it waits for, why).

    The sender of message k goes on to its next slot only once message k - ``outstanding`` has been taken, and that one
    is taken by the first slot of the receiver that needs it or a later one.
    """
    for channel, messages in routes(graph).items():
        taken_by: list[tuple[int, int]] = []
        earliest: tuple[int, int] | None = None
        for route in reversed(messages):
            earliest = route.needed_by if earliest is None else min(earliest, route.needed_by)
            taken_by.append(earliest)
        taken_by.reverse()
        for k in range(outstanding, len(messages)):
            device, position = messages[k].sent_by
            if position + 1 < len(graph.programs[device]):
                blocked = messages[k - outstanding].producer
                reason = f"its send of {messages[k].producer} blocks until {blocked} is taken ({channel})"
                yield (device, position + 1), taken_by[k - outstanding], reason
