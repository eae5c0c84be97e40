"""ZB-V: no bubble at equal costs, with 1F1B's memory, by two chunks on each device in a V."""

from __future__ import annotations

from pipelab.schedules.action import Action
from pipelab.schedules.catalogue import Recipe
from pipelab.schedules.generators.split.vee import v_placement
from pipelab.schedules.reserved import reserved
from pipelab.schedules.schedule import Program


@reserved
def zb_v(devices: int, microbatches: int, chunks: int) -> list[Program]:
    """The order of PyTorch's ScheduleZBVZeroBubble (arXiv 2401.10241, 6).

    B in the paper is the I of this table. From m = 2p on no device idles between its first and its last action, at tF =
    tI = tW. Each holds at most p full shares, as device 0 of 1F1B does.
    """
    p = devices
    return [_row(p, max(microbatches, 2 * p - 1), r, microbatches) for r in range(p)]


def _row(p: int, total: int, r: int, microbatches: int) -> Program:
    """Device r's row for ``total`` micro-batches, without those that are too many."""
    near, far = r, 2 * p - 1 - r
    row: list[Action] = []
    count = dict.fromkeys([(s, op) for s in (near, far) for op in "FIW"], 0)

    def run(stage: int, *ops: str) -> None:
        for op in ops:
            row.append(Action(stage, op, count[stage, op]))
            count[stage, op] += 1

    for _ in range(2 * (p - r) - 1):
        run(near, "F")
    for _ in range(r):
        run(far, "F")
        run(near, "F")
    for _ in range(p - r):
        run(far, "F", "I", "W")
    while count[far, "F"] < count[near, "F"] or count[near, "F"] < total:
        if count[near, "F"] < total:
            run(near, "F")
        run(near, "I", "W")
        run(far, "F", "I", "W")
    for _ in range(r):  # from here on gradients go first, for the devices that wait for them
        run(near, "I")
        run(far, "I")
    for _ in range(p - r):
        run(near, "I", "W")
    for stage in (far, near):
        while count[stage, "W"] < count[stage, "I"]:
            run(stage, "W")
    return tuple(action for action in row if action.microbatch < microbatches)


RECIPE = Recipe(
    name="zb-v",
    title="ZB-V",
    source="arXiv 2401.10241, 6; PyTorch's ScheduleZBVZeroBubble",
    programs=zb_v,
    chunks=2,
    default_chunks=2,
    placement=v_placement,
)
