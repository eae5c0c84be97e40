"""Warm-up, steady phase and cool-down, read off one device's program.

::

    1F1B, p = 4, m = 8, device 1     F0 F1 | F2 B0 F3 B1 F4 B2 F5 B3 F6 B4 F7 B5 | B6 B7
                                   warm-up | steady                              | cool-down
    GPipe                            F0 F1 F2 F3 F4 F5 F6 F7 || B0 B1 B2 B3 B4 B5 B6 B7
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelab.schedules.action import Slot, actions_of

__all__ = ["NAMES", "Phase", "phases"]

NAMES = ("warm-up", "steady", "cool-down")


@dataclass(frozen=True)
class Phase:
    """The slots ``start`` to ``stop`` - 1 of a program; ``name`` is one of ``NAMES``."""

    name: str
    start: int
    stop: int


def phases(program: Sequence[Slot]) -> tuple[Phase, ...]:
    """The phases of one device's program, in order; a phase without slots is left out.

    In the steady phase forwards and backwards take turns: it is there if a forward comes behind the first backward.
    It begins with the forward before that backward and ends with the backward behind the last forward. So device r
    of 1F1B warms up for w = min(p - 1 - r, m) forwards and cools down for as many backwards. Where all forwards stand
    before all backwards nothing alternates and there is no steady phase; that includes 1F1B with m - w = 1, whose
    program is GPipe's. R counts with its backward, and so does W where it comes right behind its I. Programs with only
    forwards or only backwards have no phases.
    """
    ops = [{action.op for action in actions_of(slot)} for slot in program]
    forwards = [k for k, here in enumerate(ops) if "F" in here]
    backwards = [k for k, here in enumerate(ops) if here & set("BIW")]
    if not forwards or not backwards:
        return ()
    behind = min(k for k, here in enumerate(ops) if here & set("BIWR"))  # where the leading forwards are over
    if forwards[-1] < behind:
        begin = end = behind
    else:
        leading = sum(k < behind for k in forwards)
        fused = "F" in ops[backwards[0]]  # then the first backward has its forward in its own slot
        begin = behind if fused or not leading else forwards[leading - 1]
        end = _turn_ends(program, ops, forwards[-1])
    bounds = (0, begin, end, len(program))
    return tuple(
        Phase(name, start, stop)
        for name, start, stop in zip(NAMES, bounds, bounds[1:], strict=False)
        if any(here - {"U"} for here in ops[start:stop])
    )


def _turn_ends(program: Sequence[Slot], ops: Sequence[set[str]], last_forward: int) -> int:
    """Where the backward that answers the last forward is over; they may be one slot."""
    answer = next((k for k in range(last_forward, len(ops)) if ops[k] & set("BI")), None)
    if answer is None:
        return last_forward + 1
    end = answer + 1
    if end < len(ops) and ops[answer] == {"I"} and ops[end] == {"W"}:
        whose = [{(action.stage, action.microbatch) for action in actions_of(program[k])} for k in (answer, end)]
        end += whose[0] == whose[1]
    return end
