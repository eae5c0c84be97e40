"""GPipe: all forwards, then all backwards.

::

    p = 3, m = 3     time  0  1  2  3  4  5  6  7  8  9
    device 0               F0 F1 F2 .  .  .  .  B0 B1 B2
    device 1               .  F0 F1 F2 .  .  B0 B1 B2 .
    device 2               .  .  F0 F1 F2 B0 B1 B2 .  .
"""

from __future__ import annotations

import numpy as np

from pipelab.schedules.catalogue import Recipe
from pipelab.schedules.reserved import reserved
from pipelab.schedules.table import Table, in_turns


@reserved
def gpipe(devices: int, microbatches: int, chunks: int) -> Table:
    """F0..F(m-1), then B0..B(m-1). Bubble fraction (p-1)/(m+p-1); all m micro-batches are in flight."""
    return in_turns([microbatches] * devices, np.arange(microbatches), np.arange(devices)[:, None])


RECIPE = Recipe(name="gpipe", title="GPipe", source="arXiv 1811.06965", programs=gpipe)
