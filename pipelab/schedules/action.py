"""Actions and slots: the words that a schedule is written in.

``3F0`` is the forward of micro-batch 0 through stage 3. A slot is one entry of a device's program: an action, or a
tuple of actions that run as one (fused). A fused forward and backward is written as PyTorch writes it,
``(4F1;3B0)OVERLAP_F_B``; other fused tuples have no suffix: ``(4F1;3I0)``. :class:`Updating` says what the U of a table
without a flush mean.

Sentences and pictures get their words from :class:`Words`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from pipelab.errors import ConfigurationError, shown, whole_number

__all__ = ["BACKWARD_OPS", "OPS", "Action", "Slot", "Updating", "Words", "actions_of", "format_slot", "parse_slot"]

OPS: Final = {
    "F": "forward",
    "B": "full backward",
    "I": "backward, gradient of the input",
    "W": "backward, gradient of the weights",
    "R": "recompute the forward",
    "U": "optimizer update",
}
BACKWARD_OPS: Final = frozenset("BIW")
RULES: Final = ("newest", "input", "delayed")

_DIGITS: Final = 18  # of a number, and room to spare
_ACTION = re.compile(r"(\d+)([A-Z]+)(\d+)", re.ASCII)
_FUSED = re.compile(r"\(([^()]*)\)(OVERLAP_F_B)?")


@dataclass(frozen=True, slots=True, order=True)
class Action:
    """One piece of work: ``op`` of micro-batch ``microbatch`` on ``stage``. All counting starts at 0."""

    stage: int
    op: str
    microbatch: int

    def __str__(self) -> str:
        return f"{self.stage}{self.op}{self.microbatch}"

    @classmethod
    def parse(cls, token: str) -> Action:
        """Read ``{stage}{op}{micro-batch}``. Raises ValueError with a sentence that says what is wrong."""
        text = token.strip()
        match = _ACTION.fullmatch(text)
        if match and match[2] in OPS:
            if max(len(match[1]), len(match[3])) > _DIGITS:
                raise ValueError(f"'{shown(text)}' counts beyond what a table can hold; an action reads like 3F0")
            return cls(int(match[1]), match[2], int(match[3]))
        raise ValueError(_explain(text))


Slot: TypeAlias = Action | tuple[Action, ...]


@dataclass(frozen=True)
class Updating:
    """``every``: a stage is updated after that many backwards, with the mean of their gradients.

    ``rule``: which version of its weights a micro-batch uses on a stage. ``"newest"``: the one that is there when its
    forward begins (PipeDream, arXiv 1806.03377). ``"input"``: the one that the first stage used for it (vertical sync,
    same paper). ``"delayed"``: micro-batch i uses max(i // every - 1, 0), so that all stages of a batch use the version
    before the newest (2BW, arXiv 2006.09503).
    """

    rule: str = "newest"
    every: int = 1

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ConfigurationError(f"rule {shown(str(self.rule))!r} picks no version; try one of {', '.join(RULES)}")
        whole_number("every", "", self.every)


def actions_of(slot: Slot) -> tuple[Action, ...]:
    """The actions of a slot, in the order in which they run."""
    return (slot,) if isinstance(slot, Action) else slot


def format_slot(slot: Slot) -> str:
    """The text of a slot; :func:`parse_slot` reads it back."""
    if isinstance(slot, Action):
        return str(slot)
    suffix = "OVERLAP_F_B" if [action.op for action in slot] == ["F", "B"] else ""
    return f"({';'.join(map(str, slot))}){suffix}"


def parse_slot(token: str) -> Slot:
    """Read one slot. Raises ValueError with a sentence that says what is wrong."""
    text = token.strip()
    if not text.startswith("("):
        return Action.parse(text)
    match = _FUSED.fullmatch(text)
    if not match:
        raise ValueError(
            f"'{shown(text)}' is not a fused slot; write actions in brackets with ';' between them: (4F1;3B0)"
        )
    parts = tuple(Action.parse(part) for part in match[1].split(";"))
    if match[2] and sorted(action.op for action in parts) != ["B", "F"]:
        raise ValueError(
            f"'{shown(text)}': OVERLAP_F_B fuses one F with one B; leave the suffix out for other fused slots"
        )
    return parts[0] if len(parts) == 1 else parts


def _explain(text: str) -> str:
    text = shown(text)
    shape = "an action is stage, op, micro-batch, like 3F0"
    match = _ACTION.fullmatch(text)
    if match:
        return f"'{text}': unknown op '{match[2]}'; ops are {', '.join(OPS)}"
    mended = re.sub(r"[ _.-]", "", text.upper()).replace("O", "0")
    match = _ACTION.fullmatch(mended)
    if match and match[2] in OPS:
        return f"'{text}' is not an action; did you mean {mended}?"
    if re.fullmatch(r"[A-Z]+\d+", mended):
        return f"'{text}' has no stage; {shape}"
    if re.fullmatch(r"\d+[A-Z]+", mended):
        return f"'{text}' has no micro-batch; {shape}"
    return f"'{text}' is not an action; {shape}"


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
