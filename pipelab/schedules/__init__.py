"""WHAT runs, on which device, in which order. Pure Python: a schedule is data."""

from pipelab.schedules.action import Action, Slot, Updating, actions_of, format_slot, parse_slot
from pipelab.schedules.catalogue import Recipe, build_schedule, recipes, round_robin
from pipelab.schedules.checker import CODES, Violation, check_schedule, require_sound, why_blocked
from pipelab.schedules.schedule import Program, Schedule, TimeTable

__all__ = [
    "CODES",
    "Action",
    "Program",
    "Recipe",
    "Schedule",
    "Slot",
    "TimeTable",
    "Updating",
    "Violation",
    "actions_of",
    "build_schedule",
    "check_schedule",
    "format_slot",
    "parse_slot",
    "recipes",
    "require_sound",
    "round_robin",
    "why_blocked",
]
