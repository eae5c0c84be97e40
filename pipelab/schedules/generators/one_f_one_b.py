"""1F1B with a flush (PipeDream-Flush): warm up, then one forward and one backward in turn, then cool down.

::

    p = 3, m = 4     time  0  1  2  3  4  5  6  7  8  9 10 11
    device 0               F0 F1 F2 .  .  B0 F3 B1 .  B2 .  B3
    device 1               .  F0 F1 .  B0 F2 B1 F3 B2 .  B3 .
    device 2               .  .  F0 B0 F1 B1 F2 B2 F3 B3 .  .
"""

from __future__ import annotations

import numpy as np

from pipelab.schedules.catalogue import Recipe
from pipelab.schedules.reserved import reserved
from pipelab.schedules.table import Table, in_turns


@reserved
def one_f_one_b(devices: int, microbatches: int, chunks: int) -> Table:
    """Device r runs w = min(p-1-r, m) forwards, then m - w pairs F, B, then w backwards: min(p-r, m) in flight.

    The warm-up is just deep enough, where messages take no time: the first gradient is back when device r has run out
    of forwards that it may start. One deeper only holds more, one shallower waits.
    """
    warmups = [min(devices - 1 - r, microbatches) for r in range(devices)]
    return in_turns(warmups, np.arange(microbatches), np.arange(devices)[:, None])


RECIPE = Recipe(
    name="1f1b",
    title="1F1B",
    source="PipeDream-Flush, arXiv 2006.09503; arXiv 2104.04473, 2.2",
    programs=one_f_one_b,
)
