"""Looped breadth-first: each device holds v chunks, and runs all micro-batches through one before the next.

::

    p = 2, m = 2, v = 2          time   0   1   2   3   4   5   6   7   8   9
    device 0 (stages 0 and 2)         0F0 0F1 2F0 2F1   .   . 2B1 2B0 0B1 0B0
    device 1 (stages 1 and 3)           . 1F0 1F1 3F0 3F1 3B1 3B0 1B1 1B0   .
"""

from __future__ import annotations

import numpy as np

from pipelab.schedules.catalogue import Recipe
from pipelab.schedules.reserved import reserved
from pipelab.schedules.table import Table, in_turns


@reserved
def looped_bfs(devices: int, microbatches: int, chunks: int) -> Table:
    """All forwards, chunk by chunk, then all backwards in the reverse order (arXiv 2211.05953).

    The bubble is that of interleaved 1F1B, (p-1)(tF+tB)/v of the makespan for m >= p, B whole. But all m micro-batches
    are in flight, as under GPipe. In return each chunk is used once forward and once backward: where weights are
    sharded over data-parallel replicas, they are fetched twice a step, whatever m.
    """
    p, v, m = devices, chunks, microbatches
    r, chunk, i = np.arange(p)[:, None], np.repeat(np.arange(v), m), np.tile(np.arange(m), v)
    forward = in_turns([m * v] * p, i, chunk * p + r)
    stage, microbatch = (column.reshape(p, 2, m * v) for column in (forward.stage, forward.microbatch))
    stage[:, 1], microbatch[:, 1] = stage[:, 0, ::-1], microbatch[:, 0, ::-1]
    return forward


RECIPE = Recipe(
    name="looped-bfs",
    title="Looped BFS",
    source="arXiv 2211.05953; PyTorch's ScheduleLoopedBFS",
    programs=looped_bfs,
    chunks=None,
    default_chunks=2,
)
