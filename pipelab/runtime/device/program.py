"""A table, compiled for those who run it: what each slot takes, where its message lies, where what it makes goes.

Everything that can be looked up once is: a worker walks a list of slots and meets only numbers. Each device has
numbered mail slots, one per message that an action of its own will use, and numbered outgoing and incoming channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipelab.schedules.action import Action, actions_of
from pipelab.schedules.dependencies import SlotGraph
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.updates import Part
from pipelab.schedules.wire import Channel, Route, routes, takes

__all__ = ["FAILED", "SLOT", "Act", "CompiledSlot", "Passage", "Program", "ProgramTable", "compile_table"]

NOTHING = -1
FAILED = -100
"""Where a device is that has left its program by an error."""
SLOT = 1 << 16
"""Where a device is, is one number, so that others read it whole: ``slot * SLOT`` before a slot and beyond the last.

To that is added 2k + 1 where it waits for the slot's message k (and, counting on, until outlet k has room), and 2k + 2
in the slot's action k. A negative number is not in a program at all.
"""


@dataclass(slots=True)
class Act:
    """One action, and where its messages lie.

    ``mail`` is the mail slot of the one that it uses. What it makes goes to the mail slot ``keep`` of this same device,
    or elsewhere through ``outlet``. -1: none.
    """

    action: Action
    mail: int = NOTHING
    keep: int = NOTHING
    outlet: int = NOTHING


@dataclass(frozen=True, slots=True)
class CompiledSlot:
    """``receives`` are (inlet, mail slot) of each message to be taken before it starts, in order."""

    receives: tuple[tuple[int, int], ...]
    acts: tuple[Act, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """One device's program. ``users[k]`` is the action that mail slot k is for.

    In a schedule without a flush some messages are used in a later step: ``late`` are (inlet, mail slot) of those to be
    taken when the program is over, ``leaving`` the mail slots that stay filled then, ``coming`` those that were filled
    in an earlier step.
    """

    slots: tuple[CompiledSlot, ...]
    outlets: tuple[Channel, ...]
    inlets: tuple[Channel, ...]
    users: tuple[Action, ...]
    late: tuple[tuple[int, int], ...] = ()
    leaving: tuple[int, ...] = ()
    coming: tuple[int, ...] = ()

    @property
    def sends(self) -> int:
        """How many messages leave."""
        return sum([act.outlet >= 0 for slot in self.slots for act in slot.acts])

    @property
    def takes(self) -> int:
        """How many messages come from elsewhere."""
        return sum([len(slot.receives) for slot in self.slots]) + len(self.late)


@dataclass(frozen=True, slots=True)
class Passage:
    """One message of the table, as it is found in two devices' records.

    Counted from 0 it is number ``sent`` of all that its source sends, and number ``taken`` of all that its destination
    takes.
    """

    channel: Channel
    route: Route
    sent: int
    taken: int


@dataclass(frozen=True, slots=True)
class ProgramTable:
    """All devices' programs, and every message between them: by channel, and in the order of taking."""

    programs: tuple[Program, ...]
    messages: dict[Channel, list[Route]]
    passages: tuple[Passage, ...]


def compile_table(schedule: Schedule) -> ProgramTable:
    """Compile a sound table; once for all that are made of the same slots."""
    kept = schedule.graph.kept
    if "programs" not in kept:
        part: Part | None = kept.get("part")
        kept["programs"] = _compile(schedule.graph) if part is None else _compile(part.whole.graph, part)
    table: ProgramTable = kept["programs"]
    return table


def _compile(graph: SlotGraph, part: Part | None = None) -> ProgramTable:
    """The whole table of ``graph``, or a part of it: then positions are counted from where the part begins."""
    devices = range(len(graph.programs))
    begin = [0 for _ in devices] if part is None else part.begin
    end = [len(program) for program in graph.programs] if part is None else part.end

    def before(place: tuple[int, int]) -> bool:
        return place[1] < begin[place[0]]

    def here(place: tuple[int, int]) -> bool:
        return begin[place[0]] <= place[1] < end[place[0]]

    messages = {
        channel: going
        for channel, found in routes(graph).items()
        if (going := [route for route in found if here(route.sent_by)])
    }
    outlets: list[list[Channel]] = [[] for _ in devices]
    inlets: list[list[Channel]] = [[] for _ in devices]
    for channel in messages:
        outlets[channel.source].append(channel)
        inlets[channel.destination].append(channel)
    acts = {
        (device, position, action): Act(action)
        for device in devices
        for position in range(begin[device], end[device])
        for action in _actions(graph.programs[device][position])
    }
    sent = _number_sends(graph, acts, messages, outlets)
    users: list[list[Action]] = [[] for _ in devices]
    receives: dict[tuple[int, int], list[tuple[int, int]]] = {}
    late: list[list[tuple[int, int]]] = [[] for _ in devices]
    leaving: list[list[int]] = [[] for _ in devices]
    coming: list[list[int]] = [[] for _ in devices]
    passages = []
    taken = [0 for _ in devices]

    def mail_slot(device: int, position: int, action: Action) -> int:
        users[device].append(action)
        number = len(users[device]) - 1
        if here((device, position)):
            acts[device, position, action].mail = number
        else:
            leaving[device].append(number)
        return number

    skipped = {channel: _sent_before(found, begin) for channel, found in routes(graph).items()}
    for (device, position), taking in takes(graph, routes(graph)).items():
        for take in taking:
            route = take.route
            if before(route.sent_by):
                if here(route.needed_by):
                    coming[device].append(mail_slot(*route.needed_by, route.consumer))
            elif here(route.sent_by):
                number = mail_slot(*route.needed_by, route.consumer)
                inlet = inlets[device].index(take.channel)
                if here((device, position)):
                    receives.setdefault((device, position), []).append((inlet, number))
                else:
                    late[device].append((inlet, number))
                if here(route.needed_by):
                    k = sent[take.channel, take.number - skipped[take.channel]]
                    passages.append(Passage(take.channel, _moved(route, begin), k, taken[device]))
                taken[device] += 1
    for device in devices:
        for position in range(len(graph.programs[device])):
            for edge in graph.edges_into(device, position):
                if edge.kind == "local" or edge.source.device != device:
                    continue
                if here(edge.source.slot):
                    number = mail_slot(device, position, edge.action)
                    acts[device, edge.source.position, edge.supplier].keep = number
                elif before(edge.source.slot) and here((device, position)):
                    coming[device].append(mail_slot(device, position, edge.action))
    programs = tuple(
        Program(
            tuple(
                CompiledSlot(
                    tuple(receives.get((device, position), ())),
                    tuple(acts[device, position, action] for action in _actions(graph.programs[device][position])),
                )
                for position in range(begin[device], end[device])
            ),
            tuple(outlets[device]),
            tuple(inlets[device]),
            tuple(users[device]),
            tuple(late[device]),
            tuple(leaving[device]),
            tuple(coming[device]),
        )
        for device in devices
    )
    if part is not None:
        messages = {channel: [_moved(route, begin) for route in found] for channel, found in messages.items()}
    return ProgramTable(programs, messages, tuple(passages))


def _sent_before(found: Sequence[Route], begin: Sequence[int]) -> int:
    """How many messages of a channel were sent before the part begins."""
    return sum(route.sent_by[1] < begin[route.sent_by[0]] for route in found)


def _moved(route: Route, begin: Sequence[int]) -> Route:
    """Its positions counted from where the part begins."""
    (source, sent), (destination, needed) = route.sent_by, route.needed_by
    return replace(route, sent_by=(source, sent - begin[source]), needed_by=(destination, needed - begin[destination]))


def _number_sends(
    graph: SlotGraph,
    acts: dict[tuple[int, int, Action], Act],
    messages: dict[Channel, list[Route]],
    outlets: Sequence[Sequence[Channel]],
) -> dict[tuple[Channel, int], int]:
    """Bind each sending action to its channel; returns message -> the place among all that its device sends."""
    numbered = {}
    for device, own in enumerate(outlets):
        program = graph.programs[device]
        parts = {
            (position, action): part
            for position, slot in enumerate(program)
            for part, action in enumerate(_actions(slot))
        }
        found = []
        for outlet, channel in enumerate(own):
            for k, route in enumerate(messages[channel]):
                position = route.sent_by[1]
                acts[device, position, route.producer].outlet = outlet
                found.append((position, parts[position, route.producer], channel, k))
        for number, (_, _, channel, k) in enumerate(sorted(found)):
            numbered[channel, k] = number
    return numbered


def _actions(slot: object) -> tuple[Action, ...]:
    return actions_of(slot) if slot is not None else ()  # type: ignore[arg-type]
