"""Interleaved 1F1B: each device holds v chunks of the model, round-robin, so that the pipeline fills v times faster.

::

    p = 2, m = 2, v = 2          time   0   1   2   3   4   5   6   7   8   9
    device 0 (stages 0 and 2)         0F0 0F1 2F0 2F1   . 2B0   . 2B1 0B0 0B1
    device 1 (stages 1 and 3)           . 1F0 1F1 3F0 3B0 3F1 3B1 1B0 1B1   .
"""

from __future__ import annotations

import numpy as np

from pipelab.schedules.catalogue import Recipe
from pipelab.schedules.reserved import reserved
from pipelab.schedules.table import Table, in_turns


@reserved
def interleaved(devices: int, microbatches: int, chunks: int) -> Table:
    """Warm-up w = min(2(p-1-r) + (v-1)p, m*v) forwards, then pairs F, B, then w backwards (arXiv 2104.04473, 2.2).

    Forwards go in groups of p micro-batches, each group through chunks 0..v-1; backwards likewise with chunks
    reversed. min(w+1, m*v)/v full shares are in flight.
    """
    p, v, total = devices, chunks, microbatches * chunks
    group, within = np.divmod(np.arange(total), p * v)  # the k-th forward: groups of p micro-batches, chunk by chunk
    chunk, i = np.divmod(within, p)
    r = np.arange(p)[:, None]
    warmups = [min(2 * (p - 1 - r) + (v - 1) * p, total) for r in range(p)]
    return in_turns(warmups, group * p + i, chunk * p + r, (v - 1 - chunk) * p + r)


def check(devices: int, microbatches: int, chunks: int) -> str | None:
    """The order in groups of p needs whole groups."""
    p, m = devices, microbatches
    if m % p == 0:
        return None
    below, above = m // p * p, (m // p + 1) * p
    tries = f"{below} or {above}" if below else f"{above}"
    return f"interleaved needs m divisible by p: m = {m}, p = {p}; try {tries}"


RECIPE = Recipe(
    name="interleaved",
    title="Interleaved 1F1B",
    source="arXiv 2104.04473, 2.2",
    programs=interleaved,
    chunks=None,
    default_chunks=2,
    check=check,
)
