"""Sees that devices wait for one another, from nothing but where each of them is in its program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelab.errors import DeadlockError
from pipelab.runtime.device.program import SLOT, CompiledSlot, ProgramTable
from pipelab.schedules.wire import Channel

__all__ = ["deadlock", "in_action", "is_stuck", "reason", "wait_at"]


@dataclass(frozen=True)
class Waiting:
    """A device waits before slot ``position``: for message ``number`` of a channel, or (``room``) until it is taken."""

    device: int
    position: int
    channel: Channel
    number: int
    room: bool = False

    @property
    def other(self) -> int:
        """The device that it waits for."""
        return self.channel.destination if self.room else self.channel.source


def deadlock(
    table: ProgramTable, whereabouts: Sequence[int], outstanding: int | None = None, *, batched: bool = False
) -> DeadlockError | None:
    """What to raise if devices can never go on; None if, as far as can be seen, all of them may.

    ``whereabouts`` (see ``program.SLOT``) need not be of one moment. Who is seen to wait for a device that is seen,
    later, not to have sent yet still waits then: a ring of such waits holds, however late its last member was seen.
    ``outstanding``: of a strict wire, the messages of a channel that may be on their way. ``batched``: a device that
    waits before a slot has said already that it will take all messages for it.
    """
    strict = outstanding is not None
    waiting: dict[int, Waiting] = {}
    for device, place in enumerate(whereabouts):
        wait = wait_at(table, device, place)
        if wait is not None and not _is_over(table, wait, whereabouts, outstanding, batched=batched):
            waiting[device] = wait
    for first in sorted(waiting):
        path = [first]
        while (other := waiting[path[-1]].other) in waiting and other not in path:
            path.append(other)
        if other in path:
            ring = path[path.index(other) :]
            lowest = ring.index(min(ring))
            return _error(table, waiting, ring[lowest:] + ring[:lowest], strict=strict)
        if whereabouts[other] >= len(table.programs[other].slots) * SLOT:
            return _error(table, waiting, [], strict=strict)
    return None


def wait_at(table: ProgramTable, device: int, place: int) -> Waiting | None:
    """What a device waits for; None if it does not."""
    position, inside = divmod(place, SLOT)
    program = table.programs[device]
    if place < 0 or position >= len(program.slots) or inside % 2 == 0:
        return None
    slots, wanted = program.slots, inside // 2
    receives = slots[position].receives
    if wanted < len(receives):
        inlet = receives[wanted][0]
        return Waiting(device, position, program.inlets[inlet], _taken(slots, position, wanted, inlet))
    outlet = wanted - len(receives)
    return Waiting(device, position, program.outlets[outlet], _sent(slots, position, outlet), room=True)


def _taken(slots: Sequence[CompiledSlot], position: int, within: int, inlet: int) -> int:
    """Messages that have come in through ``inlet`` before message ``within`` of slot ``position``."""
    before = [one for slot in slots[:position] for one, _ in slot.receives]
    return [*before, *(one for one, _ in slots[position].receives[:within])].count(inlet)


def _sent(slots: Sequence[CompiledSlot], position: int, outlet: int) -> int:
    return sum(act.outlet == outlet for slot in slots[:position] for act in slot.acts)


def _is_over(
    table: ProgramTable, wait: Waiting, whereabouts: Sequence[int], outstanding: int | None, *, batched: bool = False
) -> bool:
    """Whether what it waits for has been sent, or taken."""
    place, program = whereabouts[wait.other], table.programs[wait.other]
    if place < 0:
        return False
    position, inside = divmod(place, SLOT)
    if not wait.room:
        routes = table.messages[wait.channel]
        return wait.number < len(routes) and position > routes[wait.number].sent_by[1]
    receives = len(program.slots[position].receives) if position < len(program.slots) else 0
    within = inside // 2 if inside % 2 else receives if inside else 0
    if batched:
        within = receives if inside else 0
    elif inside % 2 and within >= receives:  # it waits for room itself, and has taken none of its slot's messages
        within = 0
    inlet = program.inlets.index(wait.channel)
    slots = (*program.slots, CompiledSlot((), ()))
    return wait.number - _taken(slots, min(position, len(program.slots)), within, inlet) <= (outstanding or 0)


def in_action(place: int) -> bool:
    """Whether a device is in one of its actions."""
    return place > 0 and place % SLOT > 0 and place % 2 == 0


def is_stuck(table: ProgramTable, device: int, whereabouts: Sequence[int]) -> bool:
    """Whether a device that does not move has no reason: neither waits for another nor is through."""
    wait = wait_at(table, device, whereabouts[device])
    if wait is not None:
        return _is_over(table, wait, whereabouts, None)
    return 0 <= whereabouts[device] < len(table.programs[device].slots) * SLOT


def _error(table: ProgramTable, waiting: Mapping[int, Waiting], ring: Sequence[int], *, strict: bool) -> DeadlockError:
    shown = [waiting[device] for device in ring] or list(waiting.values())
    lines = [f"  device {wait.device} waits {reason(table, wait)}" for wait in shown]
    if not ring:
        head = "the step cannot go on: devices wait for messages that nobody will send"
    elif len(ring) == 1:
        head = "deadlock: a device waits for itself"
    else:
        head = "deadlock: " + " waits for ".join(f"device {device}" for device in (*ring, ring[0]))
    others = len(waiting) - len(shown)
    more = [f"  ... and {others} more behind them"] if others else []
    hint = "check_schedule(schedule) says which order would do; nothing stays held"
    if strict:
        hint = "check_schedule(schedule, sends=..., outstanding=...) says which sends would do; nothing stays held"
    error = DeadlockError("\n".join([head, *lines, *more, hint]))
    error.ring = tuple(ring)
    return error


def reason(table: ProgramTable, wait: Waiting) -> str:
    """Before which slot it waits, and for what."""
    slots, routes = table.programs[wait.device].slots, table.messages[wait.channel]
    at = "+".join(str(act.action) for act in slots[wait.position].acts) or "an idle slot"
    if wait.room:
        going = routes[min(wait.number, len(routes)) - 1]
        return (
            f"before {at} until device {wait.other} takes the {wait.channel.kind} of {going.producer} (sends block "
            "here)"
        )
    if wait.number >= len(routes):
        return f"before {at} for one more message on {wait.channel} than there are"
    itself = "" if wait.other != wait.device else ", which is itself"
    coming = routes[wait.number].producer
    return f"before {at} for the {wait.channel.kind} of {coming} from device {wait.other}{itself}"
