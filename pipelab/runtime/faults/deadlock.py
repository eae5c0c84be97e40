"""Says of devices that wait for one another who waits where, for what, and from whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelab.errors import DeadlockError
from pipelab.runtime.device.channels import Waiting
from pipelab.runtime.device.program import ProgramTable

__all__ = ["deadlock_error"]


def deadlock_error(waits: Sequence[Waiting], table: ProgramTable, positions: Mapping[int, int]) -> DeadlockError:
    """The error; ``positions`` are the slots that the devices are at, before which they wait."""
    waiting = {wait.device: wait for wait in waits}
    ring = _ring(waiting)
    shown = [waiting[device] for device in ring] or list(waits)
    lines = [f"  {_described(wait, table, positions[wait.device])}" for wait in shown]
    if not ring:
        head = "the step cannot go on: devices wait for messages that nobody will send"
    elif len(ring) == 1:
        head = "deadlock: a device waits for itself"
    else:
        head = "deadlock: " + " waits for ".join(f"device {device}" for device in (*ring, ring[0]))
    others = len(waits) - len(shown)
    more = [f"  ... and {others} more behind them"] if others else []
    hint = "check_schedule(schedule) says which order would do; nothing stays held"
    error = DeadlockError("\n".join([head, *lines, *more, hint]))
    error.ring = tuple(ring)
    return error


def _ring(waiting: Mapping[int, Waiting]) -> list[int]:
    """The devices of a ring, beginning with its lowest; none where a wait leads to a device that has ended."""
    for first in sorted(waiting):
        path = [first]
        while (other := waiting[path[-1]].other) in waiting:
            if other in path:
                ring = path[path.index(other) :]
                lowest = ring.index(min(ring))
                return ring[lowest:] + ring[:lowest]
            path.append(other)
    return []


def _described(wait: Waiting, table: ProgramTable, position: int) -> str:
    slots = table.programs[wait.device].slots
    routes = table.messages[wait.channel]
    at = "+".join(str(act.action) for act in slots[position].acts) or "an idle slot"
    if wait.room:
        going = routes[min(wait.number, len(routes) - 1)]
        what = f"until device {wait.other} takes the {_kind(wait)} of {going.producer} (sends block here)"
        return f"device {wait.device} waits before {at} {what}"
    if wait.number >= len(routes):
        return f"device {wait.device} waits before {at} for one more message on {wait.channel} than there are"
    coming = routes[wait.number]
    ended = "" if wait.other != wait.device else ", which is itself"
    return (
        f"device {wait.device} waits before {at} for the {_kind(wait)} of {coming.producer} from device "
        f"{wait.other}{ended}"
    )


def _kind(wait: Waiting) -> str:
    return wait.channel.kind
