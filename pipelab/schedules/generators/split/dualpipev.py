"""DualPipeV: two chunks on each device in a V, and slots in which a forward and a backward overlap."""

from __future__ import annotations

from collections import deque

from pipelab.schedules.action import Action, Slot
from pipelab.schedules.catalogue import Recipe
from pipelab.schedules.generators.split.vee import v_placement
from pipelab.schedules.reserved import reserved
from pipelab.schedules.schedule import Program


@reserved
def dualpipev(devices: int, microbatches: int, chunks: int) -> list[Program]:
    """The order of PyTorch's ScheduleDualPipeV, after DeepSeek's code (DualPipe: arXiv 2412.19437).

    A fused slot runs the forward of one micro-batch beside the backward of another: one computes while messages of the
    other are on their way. B in DeepSeek's table of bubbles is the full backward, I and W together. Device 0 idles,
    from its first action to its last, for (p-1)(FB + B - 3W) where each is a chunk's and FB a fused slot: so at tF =
    tI.
    """
    return [_Row(devices, r).written(microbatches) for r in range(devices)]


class _Row:
    """The row of device r, in eight steps."""

    def __init__(self, devices: int, r: int) -> None:
        self.p, self.r = devices, r
        self.near, self.far = r, 2 * devices - 1 - r
        self.row: list[Slot] = []
        self.forwards = dict.fromkeys((self.near, self.far), 0)
        self.backwards = dict.fromkeys((self.near, self.far), 0)
        self.late: deque[tuple[int, int]] = deque()  # what has run I, and waits for W

    def forward(self, stage: int) -> Action:
        self.forwards[stage] += 1
        return Action(stage, "F", self.forwards[stage] - 1)

    def backward(self, stage: int, op: str = "B") -> Action:
        i = self.backwards[stage]
        self.backwards[stage] += 1
        if op == "I":
            self.late.append((stage, i))
        return Action(stage, op, i)

    def weights(self) -> None:
        if self.late:
            stage, i = self.late.popleft()
            self.row.append(Action(stage, "W", i))

    def written(self, m: int) -> Program:
        p, r, near, far, row = self.p, self.r, self.near, self.far, self.row
        row += [self.forward(near) for _ in range(2 * (p - r - 1))]
        for _ in range(r + 1):
            row += [self.forward(near), self.forward(far)]
        for _ in range(p - r - 1):
            row.append(self.backward(far, "I"))
            self.weights()
            row.append(self.forward(far))
        for k in range(m - 2 * p + r + 1):
            pair = (self.forward(near), self.backward(far))
            row += pair if k == 0 and r == p - 1 else (pair,)  # the last device's first ones depend on each other
            row.append((self.forward(far), self.backward(near)))
        for _ in range(p - r - 1):
            row.append(self.backward(far))
            row.append((self.forward(far), self.backward(near)))
        for k in range(2 * (r + 1)):  # the second half of these backwards, and all that follow, leave W for later
            row.append(self.backward((far, near)[k % 2], "I" if k > r else "B"))
        for _ in range(p - r - 1):
            self.weights()
            row.append(self.backward(near, "I"))
        while self.late:
            self.weights()
        return tuple(row)


def _enough(devices: int, microbatches: int, chunks: int) -> str | None:
    if microbatches >= 2 * devices:
        return None
    return (
        f"dualpipev needs m >= 2p, as many micro-batches as there are stages: got m = {microbatches} for "
        f"p = {devices}; try m = {2 * devices}, or 'zb-v'"
    )


RECIPE = Recipe(
    name="dualpipev",
    title="DualPipeV",
    source="DeepSeek's DualPipeV, after arXiv 2412.19437; PyTorch's ScheduleDualPipeV",
    programs=dualpipev,
    chunks=2,
    default_chunks=2,
    check=_enough,
    placement=v_placement,
)
