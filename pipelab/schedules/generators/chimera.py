"""Chimera: two pipelines through the same devices in opposite directions, each with half of the micro-batches.

::

    p = 4, m = 4                 time   0   1   2   3   4   5   6   7   8   9
    device 0 (stages 0 and 3)         0F0 0F1 3F2   . 3B2 3F3 ...
"""

from __future__ import annotations

import itertools

from pipelab.schedules.action import Action
from pipelab.schedules.catalogue import Recipe
from pipelab.schedules.generators.one_f_one_b import one_f_one_b
from pipelab.schedules.reserved import reserved
from pipelab.schedules.schedule import Program

Timed = list[tuple[int, Action]]


@reserved
def chimera(devices: int, microbatches: int, chunks: int) -> list[Program]:
    """Stage s is on device s and on device p-1-s, so each device has two stages, and each stage two homes.

    Of every p micro-batches half go down from device 0 and half up from device p-1, each half in the order of 1F1B.
    At tF = tB the two fit into each other's idle time, and each device idles for p-2 slots in place of 2(p-1). The
    price is a second copy of the weights, and gradients that the two homes of a stage add up (arXiv 2107.06925, 3).
    """
    p = devices
    unit = _unit(p)
    shift = next(s for s in itertools.count(2 * p) if not _meets(unit, s))
    rows: list[Timed] = [[] for _ in range(p)]
    for k in range(microbatches // p):
        for r in range(p):
            rows[r] += [(t + k * shift, Action(a.stage, a.op, a.microbatch + k * p)) for t, a in unit[r]]
    return [tuple(action for _, action in sorted(row)) for row in rows]


def _unit(p: int) -> list[Timed]:
    """p micro-batches, with the slot of each action at tF = tB."""
    from pipelab.schedules.dependencies import earliest_slots

    half = p // 2
    placement = tuple((r,) for r in range(p))
    timed = earliest_slots(one_f_one_b(p, half, 1).programs(), placement)
    rows: list[Timed] = [[] for _ in range(p)]
    for r, row in enumerate(timed):
        for t, slot in enumerate(row):
            if isinstance(slot, Action):
                rows[r].append((t, slot))
                rows[p - 1 - r].append((t, Action(slot.stage, slot.op, slot.microbatch + half)))
    return rows


def _meets(unit: list[Timed], shift: int) -> bool:
    """Whether a second unit, ``shift`` slots later, wants a slot that the first one has."""
    return any({t for t, _ in row} & {t + k * shift for t, _ in row for k in (1, 2)} for row in unit)


def _even(devices: int, microbatches: int, chunks: int) -> str | None:
    if devices % 2:
        return f"chimera needs an even number of devices, half of them for each direction: got p = {devices}; try " + (
            f"{devices - 1} or {devices + 1}" if devices > 1 else "2"
        )
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
    placement=lambda p, v: tuple((s, p - 1 - s) for s in range(p)),
)
