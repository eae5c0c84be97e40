"""Says where a device is, or was when its process ended."""

from __future__ import annotations

from pipelab.errors import LostProcessError
from pipelab.runtime.device.program import FAILED, SLOT, ProgramTable
from pipelab.runtime.faults.deadlock import in_action, reason, wait_at
from pipelab.schedules.action import Action

__all__ = ["LOOKING", "OPENING", "OUTSIDE", "SAVING", "UPDATING", "described", "lost_process"]

OUTSIDE, OPENING, LOOKING, UPDATING, SAVING = range(-1, -6, -1)
"""Where a device is while it is in no program."""
_PHASES = {
    OUTSIDE: "between two calls",
    OPENING: "in opening the pipeline",
    LOOKING: "at the beginning of a call",
    UPDATING: "in the update",
    SAVING: "in saving or loading",
    FAILED: "at its end, after an error",
}


def described(table: ProgramTable | None, device: int, place: int) -> str:
    """Where a device is, as the end of a sentence that begins with it."""
    if place < 0 or table is None:
        return _PHASES.get(place, "in its program")
    position, inside = divmod(place, SLOT)
    slots, wait = table.programs[device].slots, wait_at(table, device, place)
    if wait is not None:
        return f"waiting {reason(table, wait)}"
    if position >= len(slots):
        return "behind its last action"
    if not inside:
        return f"before {'+'.join(str(act.action) for act in slots[position].acts) or 'an idle slot'}"
    action = slots[position].acts[inside // 2 - 1].action
    return f"in {action} (stage {action.stage}, micro-batch {action.microbatch})"


def lost_process(how: str, table: ProgramTable | None, device: int, place: int, hint: str) -> LostProcessError:
    """The error for a process that has ended, ``how``; it names the last action that it began."""
    error = LostProcessError(f"the process of device {device} {how}, {described(table, device, place)}; {hint}")
    error.device, last = device, _last_begun(table, device, place)
    if last is not None:
        error.stage, error.action, error.microbatch = last.stage, str(last), last.microbatch
    return error


def _last_begun(table: ProgramTable | None, device: int, place: int) -> Action | None:
    if place < 0 or table is None:
        return None
    position, inside = divmod(place, SLOT)
    slots = table.programs[device].slots
    if in_action(place):
        return slots[position].acts[inside // 2 - 1].action
    return next((slot.acts[-1].action for slot in reversed(slots[:position]) if slot.acts), None)
