"""1F1B's pattern with any warm-up: what is turned to see why its own is right."""

from __future__ import annotations

from collections.abc import Sequence

from pipelab.schedules.reserved import reserved
from pipelab.schedules.schedule import Schedule

__all__ = ["with_warmups"]


@reserved
def with_warmups(warmups: Sequence[int], microbatches: int, name: str = "yours") -> Schedule:
    """The order in which device r runs ``warmups[r]`` forwards, then forwards and backwards in turn, then the rest.

    A warm-up below 0 counts as 0, one above m as m. How the rows are made is the exercise ``one_f_one_b``.
    """
    rows = []
    for r, depth in enumerate(warmups):
        w = min(max(depth, 0), microbatches)
        shape = "F" * w + "FB" * (microbatches - w) + "B" * w
        rows.append([f"{r}{op}{shape[:k].count(op)}" for k, op in enumerate(shape)])
    return Schedule.from_rows(rows, name=name)
