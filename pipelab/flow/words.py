"""The words of a flow: workers, jobs and stages by their names."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from pipelab.flow.plan import Plan
from pipelab.schedules.action import Action, Slot, Words, actions_of

__all__ = ["FlowWords"]


class FlowWords(Words):
    """Those of ``plan``, whose items come ``every`` seconds."""

    counting = "A block is a job: the letters of its stage, then its index. Counting starts at 0."
    row, rows = "worker", "workers"
    held = ("results", "held")
    clocks = MappingProxyType({"device": "device (measured costs, composed as if each worker had a core of its own)"})
    filling = "the flow is still filling"
    circles = "results on their way"

    def __init__(self, plan: Plan, every: float) -> None:
        self.stages = tuple(stage.name for stage in plan.layout.stages)
        self.letters = letters(self.stages)
        self.size = ", ".join(
            (_count(len(self.stages), "stage"), _count(len(plan.layout.rows), "worker"), _count(plan.items, "item"))
        )
        self._plan, self._every = plan, every

    def device(self, device: int) -> str:
        """ "core 1"."""
        return self._plan.layout.rows[device][1]

    def action(self, action: Action) -> str:
        """ "item 3 of compress", or "job 3" where a job is not an item."""
        low, high = self._plan.span[self._plan.job(action.stage, action.microbatch)]
        what = "item" if (low, high) == (action.microbatch, action.microbatch + 1) else "job"
        return f"{what} {action.microbatch} of {self.stages[action.stage]}"

    def slot(self, slot: Slot) -> str:
        """ "compress 3"."""
        return " ".join(f"{self.stages[action.stage]} {action.microbatch}" for action in actions_of(slot))

    def in_full(self, action: Action) -> str:
        """ "item 3 of compress"; of a batch also its items."""
        low, high = self._plan.span[self._plan.job(action.stage, action.microbatch)]
        return f"{self.action(action)}{f' (items {low} to {high - 1})' if high - low > 1 else ''}"

    def given(self, action: Action) -> str:
        """ "item 3"."""
        low, high = self._plan.span[self._plan.job(action.stage, action.microbatch)]
        return f"item {low}" if high - low == 1 else f"items {low} to {high - 1}"

    def comes(self, action: Action) -> float | None:
        """When the last of its items comes, of a stage that takes items."""
        if not self._every or self._plan.layout.upstream[action.stage]:
            return None
        return self._every * (self._plan.span[self._plan.job(action.stage, action.microbatch)][1] - 1)

    def group(self, slot: Slot) -> str:
        """The stage."""
        return "+".join(self.stages[action.stage] for action in actions_of(slot))

    def first(self, slot: Slot) -> str:
        """There are no backwards: it runs something else."""
        return f"which runs {self.slot(slot)} first"


def letters(names: Sequence[str]) -> tuple[str, ...]:
    """Of each name the first letters, as many as tell it from the others; an index can stand behind them.

    >>> letters(["map", "merge", "write"])
    ('Ma', 'Me', 'W')
    """
    found = []
    for name in names:
        others = [other.lower() for other in names if other != name]
        prefixes = [name[:k] for k in range(1, len(name)) if name[k - 1] != " "]
        short = next((one for one in prefixes if not any(other.startswith(one.lower()) for other in others)), name)
        found.append(short[0].upper() + short[1:] + (":" if short[-1].isdigit() else ""))
    return tuple(found)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
