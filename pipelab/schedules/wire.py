"""The wire: which messages a table sends, in which order, and who waits when sends are bounded.

There is one channel per (kind, source, destination). A device sends in the order of its program, and the receiver
takes messages in that order: a slot that needs message k first takes all up to k.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipelab.errors import ConfigurationError, whole_number
from pipelab.schedules.action import Action
from pipelab.schedules.dependencies import SlotGraph
from pipelab.schedules.reserved import reservable

__all__ = ["SENDS", "Channel", "Route", "Take", "room_for", "routes", "takes", "wire_waits"]

SENDS = ("asynchronous", "blocking", "batched")
"""How a device sends.

- asynchronous: it goes on at once (isend).
- blocking: it goes on, to the receives of its next slot, once its messages are taken (rendezvous).
- batched: what it sends after a slot and what it receives before the next are posted as one group. It goes on to that
  slot once all of the group is done. (So do ``batch_isend_irecv`` and Megatron's ``send_forward_recv_backward``.)

After its last slot a device waits for nothing.
"""


def room_for(sends: str, outstanding: int | None) -> int | None:
    """How many messages of a channel may be sent and not taken; None: as many as one likes.

    ``outstanding`` says so itself; else those whose sends wait have room for none. Raises ConfigurationError.
    """
    if sends not in SENDS:
        raise ConfigurationError(f"sends must be one of {', '.join(map(repr, SENDS))}, got {sends!r}")
    if outstanding is not None and (outstanding != 0 or not isinstance(outstanding, int) or outstanding is False):
        whole_number("outstanding", "", outstanding)
    return 0 if outstanding is None and sends != "asynchronous" else outstanding


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


@dataclass(frozen=True, slots=True)
class Take:
    """Message ``number`` of a channel, taken off the wire."""

    channel: Channel
    number: int
    route: Route


@reservable
def routes(graph: SlotGraph) -> dict[Channel, list[Route]]:
    """Every message of the table, per channel, in the order of sending. To be read, not changed."""
    if "routes" not in graph.kept:
        graph.kept["routes"] = _routes(graph)
    kept: dict[Channel, list[Route]] = graph.kept["routes"]
    return kept


def _routes(graph: SlotGraph) -> dict[Channel, list[Route]]:
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


def takes(graph: SlotGraph, messages: Mapping[Channel, Sequence[Route]]) -> dict[tuple[int, int], list[Take]]:
    """What each slot takes off the wire before it starts, in order: for each need, all up to the message it needs."""
    number = {(channel, route.consumer): k for channel, routed in messages.items() for k, route in enumerate(routed)}
    taken = dict.fromkeys(messages, 0)
    found: dict[tuple[int, int], list[Take]] = {}
    for device, program in enumerate(graph.programs):
        for position in range(len(program)):
            for edge in graph.edges_into(device, position):
                if not edge.crosses:
                    continue
                channel = Channel(edge.kind, edge.source.device, device)
                needed = number[channel, edge.action]
                for k in range(taken[channel], needed + 1):
                    found.setdefault((device, position), []).append(Take(channel, k, messages[channel][k]))
                taken[channel] = max(taken[channel], needed + 1)
    return found


def wire_waits(
    graph: SlotGraph, outstanding: int, *, batched: bool = False
) -> Iterator[tuple[tuple[int, int], tuple[int, int], bool, str]]:
    """The waits that bounded channels add: (who waits, for which slot, whether that has but to be entered, why).

    The sender of message k enters its next slot only once message k - ``outstanding`` has been taken. The receiver
    takes it when it has entered the slot that needs it, and has taken what that slot takes first. ``batched``: the
    sender enters, and does not run, and the receiver takes all of its slot's messages at once.
    """
    messages = routes(graph)
    taken_in: dict[tuple[Channel, int], tuple[tuple[int, int], list[Take]]] = {}
    for slot, taking in takes(graph, messages).items():
        for place, take in enumerate(taking):
            taken_in[take.channel, take.number] = (slot, taking[:place])
    for channel, routed in messages.items():
        for k in range(outstanding, len(routed)):
            device, position = routed[k].sent_by
            if position + 1 == len(graph.programs[device]):
                continue
            (receiver, taker), earlier = taken_in[channel, k - outstanding]
            blocked = routed[k - outstanding].producer
            reason = f"its send of {routed[k].producer} blocks until {blocked} is taken ({channel})"
            yield (device, position + 1), (receiver, taker), True, reason
            for take in () if batched else earlier:
                yield (device, position + 1), take.route.sent_by, False, reason
