"""Small tables by hand, for what no generator writes: split backwards, fused slots, two-way pipelines, updates."""

from pipelab.schedules import Action, Schedule, Slot

# Zero-bubble style: I as soon as it can, W where there is time.
SPLIT = """\
0F0,0F1,0I0,0W0,0I1,0W1
1F0,1I0,1F1,1I1,1W0,1W1
"""

# Nobody asks stage 0 for the gradient of its input, so it may leave I out.
SPLIT_WITHOUT_FIRST_INPUT_GRADIENT = """\
0F0,0F1,0W0,0W1
1F0,1I0,1F1,1I1,1W0,1W1
"""

FUSED = """\
0F0,(0F1;0B0)OVERLAP_F_B,(0F2;0B1)OVERLAP_F_B,0B2
(1F0;1B0)OVERLAP_F_B,(1F1;1B1)OVERLAP_F_B,(1F2;1B2)OVERLAP_F_B
"""

# The halves of a backward, fused and deferred: fused tuples that PyTorch has no word for.
FUSED_HALVES = """\
0F0,0F1,(0F2;0I0),(0W0;0I1),(0W1;0I2),0W2
1F0,(1I0;1F1),(1I1;1W0),1F2,(1I2;1W1),1W2
"""

# Micro-batch 0 goes down, micro-batch 1 goes up: both devices hold both stages (Chimera, arXiv 2107.06925).
TWO_WAY = """\
0F0,1F1,1B1,0B0
0F1,1F0,1B0,0B1
"""

# Stages 0 and 3 on device 0, stages 1 and 2 on device 1: stage 1 hands over to stage 2 without a message.
V_SHAPED = """\
0F0,3F0,3B0,0B0
1F0,2F0,2B0,1B0
"""

# PipeDream without a flush: each backward is followed by its update.
UPDATES = """\
0F0,0F1,0B0,0U0,0F2,0B1,0U1,0B2,0U2
1F0,1B0,1U0,1F1,1B1,1U1,1F2,1B2,1U2
"""

RECOMPUTED = """\
0F0,0F1,0R0,0B0,0R1,0B1
1F0,1F1,1R0,1B0,1R1,1B1
"""

FORWARD_ONLY = """\
0F0,0F1,0F2
1F0,1F1,1F2
"""

SOUND = {
    "split": SPLIT,
    "split without 0I": SPLIT_WITHOUT_FIRST_INPUT_GRADIENT,
    "fused": FUSED,
    "fused halves": FUSED_HALVES,
    "two-way": TWO_WAY,
    "V-shaped": V_SHAPED,
    "updates": UPDATES,
    "recomputed": RECOMPUTED,
    "forward only": FORWARD_ONLY,
}

# The published p = 4, m = 4 timetable of sources/004, counted from 0. It is impossible.
PUBLISHED_004 = """\
0F0,0F1,0F2,0F3,,,0B0,0B1,0B2,0B3
,1F0,1F1,1F2,1F3,1B0,1B1,1B2,1B3
,,2F0,2F1,2F2,2F3,2B0,2B1,2B2,2B3
,,,3F0,3B0,3B1,3B2,3B3
"""


def read(text: str, name: str = "table") -> Schedule:
    return Schedule.from_csv(text, name=name)


def round_robin_table(*rows: str, stages: int, microbatches: int) -> Schedule:
    """A table that keeps its own idea of stages, devices and micro-batches, whatever stands in its rows."""
    placement = tuple((stage % len(rows),) for stage in range(stages))
    return Schedule.from_csv("\n".join(rows), placement=placement, weights=(1.0,) * microbatches)


def warm_up_by_hand(p: int, m: int, depths: list[int]) -> Schedule:
    """1F1B with its warm-up depth turned by hand: ``depths[r]`` forwards, then pairs F, B, then the backwards left."""
    programs: list[tuple[Slot, ...]] = []
    for r, depth in enumerate(depths):
        forwards = [Action(r, "F", i) for i in range(m)]
        backwards = [Action(r, "B", i) for i in range(m)]
        row = forwards[:depth]
        for forward, backward in zip(forwards[depth:], backwards, strict=False):
            row += [forward, backward]
        programs.append((*row, *backwards[m - depth :]))
    return Schedule("by hand", tuple(programs), tuple((r,) for r in range(p)), (1.0,) * m)


def gpipe_then_1f1b(m: int) -> Schedule:
    """Two devices that disagree: device 0 runs GPipe's order, device 1 runs 1F1B's."""
    down = ",".join([f"0F{i}" for i in range(m)] + [f"0B{i}" for i in range(m)])
    up = ",".join(f"1F{i},1B{i}" for i in range(m))
    return read(f"{down}\n{up}\n", name="gpipe then 1f1b")
