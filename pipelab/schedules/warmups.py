"""1F1B's pattern with any warm-up: what is turned to see why its own is right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelab.schedules.reserved import reserved
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.table import in_turns

__all__ = ["with_warmups"]


@reserved
def with_warmups(warmups: Sequence[int], microbatches: int, name: str = "yours") -> Schedule:
    """The order in which device r runs ``warmups[r]`` forwards, then forwards and backwards in turn, then the rest.

    A warm-up below 0 counts as 0, one above m as m. How the rows are made is the exercise ``one_f_one_b``.
    """
    depths = [min(max(depth, 0), microbatches) for depth in warmups]
    table = in_turns(depths, np.arange(microbatches), np.arange(len(depths))[:, None])
    return Schedule.of_table(name, table, tuple((r,) for r in range(len(depths))), (1.0,) * microbatches)
