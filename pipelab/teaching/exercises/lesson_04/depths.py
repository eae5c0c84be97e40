"""Interleaved 1F1B's warm-ups, and its table with others."""

from __future__ import annotations

from collections.abc import Sequence

from pipelab.schedules import Schedule
from pipelab.schedules.reserved import reserved


@reserved
def with_depths(
    depths: Sequence[int], microbatches: int, chunks: int, *, group: int | None = None, name: str = "yours"
) -> Schedule:
    """Interleaved 1F1B with other warm-ups: device r runs ``depths[r]`` forwards first, then pairs, then the rest.

    Forwards go in groups of ``group`` micro-batches, each group through all chunks. ``group`` divides m; by default
    there are m // p groups, or one. A depth below 0 counts as 0, one above m v as m v. How the rows are made is the
    exercise ``interleaved``.
    """
    p, total = len(depths), microbatches * chunks
    size = group or microbatches // max(1, microbatches // p)
    order = [(c, g + i) for g in range(0, microbatches, size) for c in range(chunks) for i in range(size)]
    rows = []
    for r, depth in enumerate(depths):
        w = min(max(depth, 0), total)
        shape = "F" * w + "FB" * (total - w) + "B" * w
        row = []
        for k, op in enumerate(shape):
            c, i = order[shape[:k].count(op)]
            row.append(f"{(c if op == 'F' else chunks - 1 - c) * p + r}{op}{i}")
        rows.append(row)
    return Schedule.from_rows(rows, name=name)


@reserved
def depths_of(p: int, m: int, v: int) -> list[int]:
    """The warm-ups of arXiv 2104.04473, and PyTorch's where p does not divide m: forwards of a chunk, per device."""
    group = m // max(1, m // p)
    return [min(2 * (p - 1 - r) + (v - 1) * group, m * v) for r in range(p)]
