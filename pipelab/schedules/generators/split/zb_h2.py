"""ZB-H2: twice the warm-up of 1F1B, so that no device waits for its first gradient, and W as late as it takes."""

from __future__ import annotations

import numpy as np

from pipelab.schedules.catalogue import Recipe
from pipelab.schedules.reserved import reserved
from pipelab.schedules.table import Table, in_turns


@reserved
def zb_h2(devices: int, microbatches: int, chunks: int) -> Table:
    """Device r runs 2(p-r)-1 forwards before its first I, and W 2r backwards late (arXiv 2401.10241, 3).

    From its own first action to its own last, a device idles for (p-1)(tF+tI-2tW): not at all at equal costs. Device
    r begins r forwards later than device 0, and ends that much later: its optimizer step has to be let go by itself,
    without a barrier (``Pipeline(post_validation=True)``). Up to 2p-1 micro-batches are in flight on device 0.
    """
    p = devices
    warmups = [2 * (p - 1 - r) for r in range(p)]
    return in_turns(warmups, np.arange(microbatches), np.arange(p)[:, None], waits=range(0, 2 * p, 2))


def _enough(devices: int, microbatches: int, chunks: int) -> str | None:
    least = 2 * devices - 1
    if microbatches >= least:
        return None
    return (
        f"zb-h2 needs m >= 2p - 1: device 0 runs {least} forwards before its first backward, got m = {microbatches} "
        f"for p = {devices}; try m = {least}, or 'zb-h1'"
    )


RECIPE = Recipe(name="zb-h2", title="ZB-H2", source="arXiv 2401.10241, 3", programs=zb_h2, check=_enough)
