"""PipeDream with vertical sync: all stages use, for a micro-batch, the version that the first stage used for it.

The order is PipeDream's. Micro-batch i uses version max(0, i - (p - 1)) everywhere, so every device keeps p versions.
"""

from __future__ import annotations

from pipelab.schedules.action import Updating
from pipelab.schedules.catalogue import Recipe
from pipelab.schedules.generators.without_flush.pipedream import pipedream

RECIPE = Recipe(
    name="vertical-sync",
    title="PipeDream with vertical sync",
    source="arXiv 1806.03377, 3.3",
    programs=pipedream,
    updating=lambda m: Updating("input"),
)
