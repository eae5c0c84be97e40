"""Interleaved 1F1B with each backward in two: the order of PyTorch's ScheduleInterleavedZeroBubble."""

from __future__ import annotations

from pipelab.schedules.catalogue import Recipe
from pipelab.schedules.generators.interleaved import check, in_groups
from pipelab.schedules.reserved import reserved
from pipelab.schedules.table import Table


@reserved
def interleaved_zb(devices: int, microbatches: int, chunks: int) -> Table:
    """ZB-H1 with v chunks, dealt out round-robin: warm-up min((v-1)g + p-1-r, m*v), and W r backwards late.

    Groups of micro-batches are those of interleaved 1F1B. Its warm-up is shallower by p-1-r, the part that hides
    messages there. Each device idles for (p-1)(tF+tI-tW)/v of the makespan. With v = 1 this is ZB-H1.
    """
    return in_groups(devices, microbatches, chunks, ahead=1, waits=range(devices))


def _whole(devices: int, microbatches: int, chunks: int) -> str | None:
    problem = check(devices, microbatches, chunks)
    return problem and problem.replace("interleaved", "interleaved-zb", 1)


RECIPE = Recipe(
    name="interleaved-zb",
    title="Interleaved ZB",
    source="PyTorch's ScheduleInterleavedZeroBubble, after arXiv 2401.10241",
    programs=interleaved_zb,
    chunks=None,
    default_chunks=2,
    check=_whole,
)
