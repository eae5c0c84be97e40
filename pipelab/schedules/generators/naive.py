"""Naive model parallelism: the whole batch goes through as one piece, one device works at a time.

::

    p = 3     time  0 1 2 3 4 5
    device 0        F . . . . B
    device 1        . F . . B .
    device 2        . . F B . .
"""

from __future__ import annotations

import numpy as np

from pipelab.schedules.catalogue import Recipe
from pipelab.schedules.reserved import reserved
from pipelab.schedules.table import Table, in_turns


@reserved
def naive(devices: int, microbatches: int, chunks: int) -> Table:
    """One forward and one backward per device: utilisation 1/p."""
    return in_turns([1] * devices, np.arange(1), np.arange(devices)[:, None])


RECIPE = Recipe(
    name="naive",
    title="Naive",
    source="one device at a time; the baseline of GPipe's paper, arXiv 1811.06965, fig. 2b",
    programs=naive,
    weights=lambda m: (float(m),),  # its one micro-batch holds the whole batch
)
