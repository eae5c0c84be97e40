"""The words for the things of a schedule, in sentences and in pictures."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pipelab.schedules.action import OPS, Action, Slot, actions_of, format_slot

__all__ = ["Words"]


class Words:
    """A pipeline's own words: devices, micro-batches, stages by number. What else is drawn as one overrides them."""

    counting = "A number alone is a micro-batch. Counting starts at 0."
    row, rows = "device", "devices"
    """What has a row of its own."""
    held = ("micro-batches", "in flight")
    """What a device holds: the things, and how they are held."""
    letters: tuple[str, ...] = ()
    """By stage, what stands on its blocks. Empty: the op does, and colours go by it."""
    stages: tuple[str, ...] = ()
    """The names of stages that have one."""
    size = ""
    """How large it is, in words; empty: p, m and v say it."""
    clocks: Mapping[str, str] = MappingProxyType({})
    """What clocks are called, where that differs."""
    filling = "the pipeline is still filling"
    circles = "messages, activations above, gradients below"
    """The things that fly between devices when a timeline is played."""

    def device(self, device: int) -> str:
        """ "device 2"."""
        return f"device {device}"

    def action(self, action: Action) -> str:
        """In a sentence: "3F0"."""
        return str(action)

    def slot(self, slot: Slot) -> str:
        """The short form: "3F0"."""
        return format_slot(slot)

    def in_full(self, action: Action) -> str:
        """ "forward of micro-batch 0, stage 3"."""
        return f"{OPS[action.op].replace('full ', '')} of micro-batch {action.microbatch}, stage {action.stage}"

    def given(self, action: Action) -> str:
        """What an action takes that needs no other."""
        return "its part of the batch"

    def comes(self, action: Action) -> float | None:
        """When that comes; None if it is there from the start."""
        return None

    def group(self, slot: Slot) -> str:
        """What slots are alike: the op."""
        return "+".join(action.op for action in actions_of(slot))

    def first(self, slot: Slot) -> str:
        """What a device does that runs a slot before its first backward."""
        return f"which still runs forwards ({self.slot(slot)})"
