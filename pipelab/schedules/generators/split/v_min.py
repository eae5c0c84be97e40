"""V-Min: a V-shaped pipeline that holds about a third of what 1F1B holds."""

from __future__ import annotations

from pipelab.schedules.catalogue import Recipe
from pipelab.schedules.generators.split.vee import of_blocks, v_placement
from pipelab.schedules.reserved import reserved
from pipelab.schedules.schedule import Program


@reserved
def v_min(devices: int, microbatches: int, chunks: int) -> list[Program]:
    """Steps of 2 and 2 units between neighbours, forward and backward together (arXiv 2405.15362, 3).

    With 1F1B's memory both would be 6. So each device holds a third of it for many devices, the same on all devices.
    Where costs are unequal it idles more than the others: a micro-batch goes down and up twice at the shortest steps.
    """
    return of_blocks(devices, microbatches, down=2, up=2)


RECIPE = Recipe(
    name="v-min",
    title="V-Min",
    source="arXiv 2405.15362, 3",
    programs=v_min,
    chunks=2,
    default_chunks=2,
    placement=v_placement,
)
