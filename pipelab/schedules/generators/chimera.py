"""Chimera: two pipelines through the same devices in opposite directions, each with half of the micro-batches.

::

    p = 4, m = 4                    time   0   1   2   3   4   5   6   7   8   9
    device 0 (stages 0 and 3)           0F0   . 0F1 3F2 3B2 3F3 3B3 0B0   . 0B1
    device 1 (stages 1 and 2)             . 1F0 2F2 1F1 2F3 2B2 1B0 2B3 1B1   .
    device 2 (stages 1 and 2)             . 1F2 2F0 1F3 2F1 2B0 1B2 2B1 1B3   .
    device 3 (stages 0 and 3)           0F2   . 0F3 3F0 3B0 3F1 3B1 0B2   . 0B3
"""

from __future__ import annotations

from pipelab.schedules.action import Action
from pipelab.schedules.catalogue import Recipe
from pipelab.schedules.reserved import reserved
from pipelab.schedules.schedule import Program


@reserved
def chimera(devices: int, microbatches: int, chunks: int) -> list[Program]:
    """Stage s is on device s and on device p-1-s: each device has two stages, each stage two homes.

    Of every p micro-batches half go down from device 0 and half up from device p-1, one every two slots. At tF = tB
    each direction runs in the slots that the other leaves free, and so does the next p. So each device idles for p-2
    slots of the makespan in place of 1F1B's 2(p-1), for every m, B whole (arXiv 2107.06925, 3). The price is a second
    copy of the weights, and gradients that the two homes of a stage add up.
    """
    p, half = devices, devices // 2
    rows: list[list[tuple[int, Action]]] = [[] for _ in range(p)]
    for i in range(microbatches):
        unit, within = divmod(i, p)
        begin = 2 * p * unit + 2 * (within % half)
        for s in range(p):
            row = rows[s if within < half else p - 1 - s]
            row += [(begin + s, Action(s, "F", i)), (begin + 2 * p - 1 - s, Action(s, "B", i))]
    return [tuple(action for _, action in sorted(row)) for row in rows]


def _even(devices: int, microbatches: int, chunks: int) -> str | None:
    if devices % 2:
        near = f"{devices - 1} or {devices + 1}" if devices > 1 else "2"
        return f"chimera needs an even number of devices, half for each direction: got p = {devices}; try {near}"
    if microbatches % devices:
        below, above = microbatches // devices * devices, -(-microbatches // devices) * devices
        near = f"{below} or {above}" if below else f"{above}"
        return f"chimera needs m to be a multiple of p, p/2 in each direction: got m = {microbatches}; try {near}"
    return None


RECIPE = Recipe(
    name="chimera",
    title="Chimera",
    source="arXiv 2107.06925, 3",
    programs=chimera,
    check=_even,
    placement=lambda p, v: tuple((min(s, p - 1 - s), max(s, p - 1 - s)) for s in range(p)),
)
