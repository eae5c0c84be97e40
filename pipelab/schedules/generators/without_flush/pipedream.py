"""PipeDream: 1F1B without a flush. Each stage is updated after each backward, and goes on at once.

::

    p = 3, m = 4     time  0  1  2  3  4  5  6  7  8  9 10 11
    device 0               F0 F1 F2 .  .  B0 F3 B1 .  B2 .  B3      version of F0 to F3: 0 0 0 1
    device 1               .  F0 F1 .  B0 F2 B1 F3 B2 .  B3 .                            0 0 1 2
    device 2               .  .  F0 B0 F1 B1 F2 B2 F3 B3 .  .                            0 1 2 3

(An update follows each B.) The next step's forwards come where this table begins to empty. Forward i on stage s uses
version max(0, i - (p - 1 - s)), so device r keeps p - r versions.
"""

from __future__ import annotations

from pipelab.schedules.action import Updating
from pipelab.schedules.catalogue import Recipe
from pipelab.schedules.reserved import reserved
from pipelab.schedules.schedule import Program
from pipelab.schedules.updates import one_f_one_b_with_updates


@reserved
def pipedream(devices: int, microbatches: int, chunks: int) -> list[Program]:
    """1F1B's order with a U after each B."""
    return [tuple(row) for row in one_f_one_b_with_updates(devices, microbatches)]


RECIPE = Recipe(
    name="pipedream",
    title="PipeDream",
    source="arXiv 1806.03377, 3.2 and 3.3",
    programs=pipedream,
    updating=lambda m: Updating("newest"),
)
