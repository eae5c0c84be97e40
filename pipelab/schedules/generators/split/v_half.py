"""V-Half: a V-shaped pipeline that holds about half of what 1F1B holds."""

from __future__ import annotations

from pipelab.schedules.catalogue import Recipe
from pipelab.schedules.generators.split.vee import of_blocks, v_placement
from pipelab.schedules.reserved import reserved
from pipelab.schedules.schedule import Program


@reserved
def v_half(devices: int, microbatches: int, chunks: int) -> list[Program]:
    """Steps of 3 and 3 units between neighbours, forward and backward together (arXiv 2405.15362, 3).

    With 1F1B's memory both would be 6. So each device holds half of it for many devices, the same on all devices.

    """
    return of_blocks(devices, microbatches, down=3, up=3)


RECIPE = Recipe(
    name="v-half",
    title="V-Half",
    source="arXiv 2405.15362, 3",
    programs=v_half,
    chunks=2,
    default_chunks=2,
    placement=v_placement,
)
