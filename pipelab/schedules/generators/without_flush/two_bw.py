"""PipeDream-2BW: 1F1B without a flush, and an update after every m micro-batches, in two versions of the weights.

All stages compute a batch with the version before the newest: W(t+1) = W(t) - lr * gradient(W(t-1)). With m >= p
micro-batches a batch, no more than two versions are ever needed.
"""

from __future__ import annotations

from pipelab.schedules.action import Updating
from pipelab.schedules.catalogue import Recipe
from pipelab.schedules.reserved import reserved
from pipelab.schedules.schedule import Program
from pipelab.schedules.updates import one_f_one_b_with_updates


@reserved
def two_bw(devices: int, microbatches: int, chunks: int) -> list[Program]:
    """1F1B's order with a U after the last B of the batch."""
    return [tuple(row) for row in one_f_one_b_with_updates(devices, microbatches, microbatches)]


def _enough(devices: int, microbatches: int, chunks: int) -> str | None:
    if microbatches >= devices:
        return None
    return (
        f"2BW needs m >= p: with m = {microbatches} on p = {devices} devices a forward may begin before the version "
        f"that it needs is made; try m = {devices}, or 'pipedream'"
    )


RECIPE = Recipe(
    name="2bw",
    title="PipeDream-2BW",
    source="arXiv 2006.09503, 3.1",
    programs=two_bw,
    check=_enough,
    updating=lambda m: Updating("delayed", m),
)
