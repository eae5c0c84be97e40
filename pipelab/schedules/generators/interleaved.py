"""Interleaved 1F1B: each device holds v chunks of the model, round-robin, so that the pipeline fills v times faster.

::

    p = 2, m = 2, v = 2          time   0   1   2   3   4   5   6   7   8   9
    device 0 (stages 0 and 2)         0F0 0F1 2F0 2F1   . 2B0   . 2B1 0B0 0B1
    device 1 (stages 1 and 3)           . 1F0 1F1 3F0 3B0 3F1 3B1 1B0 1B1   .
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelab.schedules.catalogue import Recipe
from pipelab.schedules.reserved import reserved
from pipelab.schedules.table import Table, in_turns


@reserved
def interleaved(devices: int, microbatches: int, chunks: int) -> Table:
    """Warm-up w = min(2(p-1-r) + (v-1)g, m*v) forwards, then pairs F, B, then w backwards (arXiv 2104.04473, 2.2).

    Micro-batches go in groups of g, each group forward through chunks 0..v-1 and backward through them reversed. There
    are max(1, m // p) groups, so g = p where p divides m. That is the paper's case; the others are PyTorch's
    ScheduleInterleaved1F1B, whose word for a group is round. min(w+1, m*v)/v full shares are in flight. Where several
    groups are larger than p, up to g-p+1 messages wait on the way from device p-1 to device 0.
    """
    return in_groups(devices, microbatches, chunks, ahead=2)


@reserved
def in_groups(devices: int, microbatches: int, chunks: int, ahead: int, waits: Sequence[int] | None = None) -> Table:
    """Groups in turns, with warm-up min(ahead(p-1-r) + (v-1)g, m*v); ``waits``: see :func:`in_turns`."""
    p, v, total = devices, chunks, microbatches * chunks
    g = microbatches // groups_of(p, microbatches)
    group, within = np.divmod(np.arange(total), g * v)  # the k-th forward: group by group, chunk by chunk
    chunk, i = np.divmod(within, g)
    r = np.arange(p)[:, None]
    warmups = [min(ahead * (p - 1 - r) + (v - 1) * g, total) for r in range(p)]
    return in_turns(warmups, group * g + i, chunk * p + r, (v - 1 - chunk) * p + r, waits)


def groups_of(devices: int, microbatches: int) -> int:
    """How many groups m micro-batches make: of at least p each, and one where there are fewer than p."""
    return max(1, microbatches // devices)


def check(devices: int, microbatches: int, chunks: int) -> str | None:
    """Groups have to be of equal size."""
    p, m = devices, microbatches

    def whole(m: int) -> bool:
        return m % groups_of(p, m) == 0

    if whole(m):
        return None
    below = next(n for n in range(m, 0, -1) if whole(n))  # m // p * p works
    above = next(n for n in range(m, m + p) if whole(n))  # as does the next multiple of p
    return (
        f"interleaved needs m // p groups of equal size: m = {m}, p = {p} cannot make {groups_of(p, m)} equal groups; "
        f"try {below} or {above}"
    )


RECIPE = Recipe(
    name="interleaved",
    title="Interleaved 1F1B",
    source="arXiv 2104.04473, 2.2",
    programs=interleaved,
    chunks=None,
    default_chunks=2,
    check=check,
)
