"""ZB-H1: 1F1B with each backward in two. Device r runs W r backwards late, and so fills its last idle time.

::

    p = 3, m = 4     time  0  1  2  3  4  5  6  7  8  9 10 11 12 13
    device 0               F0 F1 F2 .  .  I0 W0 F3 I1 W1 I2 W2 I3 W3
    device 1               .  F0 F1 .  I0 F2 I1 W0 F3 I2 W1 I3 W2 W3
    device 2               .  .  F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2 W3
"""

from __future__ import annotations

import numpy as np

from pipelab.schedules.catalogue import Recipe
from pipelab.schedules.reserved import reserved
from pipelab.schedules.table import Table, in_turns


@reserved
def zb_h1(devices: int, microbatches: int, chunks: int) -> Table:
    """1F1B's warm-ups, p-1-r, and W r backwards late (arXiv 2401.10241, 3).

    B in the paper's formulas is the I of this table. Each device idles for (p-1)(tF+tI-tW) in the makespan: at equal
    costs a third of what 1F1B idles, which is (p-1)(tF+tI+tW). As many forwards are in flight as under 1F1B; what
    waits for its W comes on top, so that every device holds about as much as device 0.
    """
    warmups = [min(devices - 1 - r, microbatches) for r in range(devices)]
    return in_turns(warmups, np.arange(microbatches), np.arange(devices)[:, None], waits=range(devices))


RECIPE = Recipe(name="zb-h1", title="ZB-H1", source="arXiv 2401.10241, 3", programs=zb_h1)
