"""A table, compiled for those who run it: what each slot takes, where its message lies, where what it makes goes.

Everything that can be looked up once is: a worker walks a list of slots and meets only numbers. Each device has
numbered mail slots, one per message that an action of its own will use, and numbered outgoing and incoming channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelab.schedules.action import Action, actions_of
from pipelab.schedules.dependencies import SlotGraph
from pipelab.schedules.schedule import Schedule
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
    """One device's program. ``users[k]`` is the action that mail slot k is for."""

    slots: tuple[CompiledSlot, ...]
    outlets: tuple[Channel, ...]
    inlets: tuple[Channel, ...]
    users: tuple[Action, ...]

    @property
    def sends(self) -> int:
        """How many messages leave."""
        return sum([act.outlet >= 0 for slot in self.slots for act in slot.acts])

    @property
    def takes(self) -> int:
        """How many messages come from elsewhere."""
        return sum([len(slot.receives) for slot in self.slots])


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
        kept["programs"] = _compile(schedule.graph)
    table: ProgramTable = kept["programs"]
    return table


def _compile(graph: SlotGraph) -> ProgramTable:
    messages = routes(graph)
    outlets: list[list[Channel]] = [[] for _ in graph.programs]
    inlets: list[list[Channel]] = [[] for _ in graph.programs]
    for channel in messages:
        outlets[channel.source].append(channel)
        inlets[channel.destination].append(channel)
    acts = {
        (device, position, action): Act(action)
        for device, program in enumerate(graph.programs)
        for position, slot in enumerate(program)
        for action in _actions(slot)
    }
    sent = _number_sends(graph, acts, messages, outlets)
    users: list[list[Action]] = [[] for _ in graph.programs]
    receives: dict[tuple[int, int], list[tuple[int, int]]] = {}
    passages = []
    taken = [0] * len(users)

    def mail_slot(device: int, position: int, action: Action) -> int:
        users[device].append(action)
        acts[device, position, action].mail = len(users[device]) - 1
        return acts[device, position, action].mail

    for (device, position), taking in takes(graph, messages).items():
        for take in taking:
            route = take.route
            number = mail_slot(*route.needed_by, route.consumer)
            inlet = inlets[device].index(take.channel)
            receives.setdefault((device, position), []).append((inlet, number))
            passages.append(Passage(take.channel, route, sent[take.channel, take.number], taken[device]))
            taken[device] += 1
    for device, program in enumerate(graph.programs):
        for position in range(len(program)):
            for edge in graph.edges_into(device, position):
                if edge.kind != "local" and edge.source.device == device:
                    acts[device, edge.source.position, edge.supplier].keep = mail_slot(device, position, edge.action)
    programs = tuple(
        Program(
            tuple(
                CompiledSlot(
                    tuple(receives.get((device, position), ())),
                    tuple(acts[device, position, action] for action in _actions(slot)),
                )
                for position, slot in enumerate(program)
            ),
            tuple(outlets[device]),
            tuple(inlets[device]),
            tuple(users[device]),
        )
        for device, program in enumerate(graph.programs)
    )
    return ProgramTable(programs, messages, tuple(passages))


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
