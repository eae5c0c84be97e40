"""Pipelines in a V: device r holds stage r, where the model goes down, and stage 2p-1-r, where it comes back up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product

from pipelab.schedules.action import Action
from pipelab.schedules.schedule import Program

__all__ = ["of_blocks", "v_placement"]

PERIOD = 6  # F, I and W of two chunks, each of one unit


def v_placement(devices: int, chunks: int) -> tuple[tuple[int, ...], ...]:
    """Stage s on device s, then back up: the last stage is on the device of the first."""
    return tuple((r,) for r in (*range(devices), *reversed(range(devices))))


def of_blocks(devices: int, microbatches: int, down: int, up: int) -> list[Program]:
    """The schedule that repeats one micro-batch's times every six units, in the order of these times.

    ``down``: a device's forward and backward of stage r are together that many units later, or sooner, than those of
    the device above it. ``up``: the same of stage 2p-1-r. What a device holds is proportional to how long a
    micro-batch stays on it, and so to these two numbers (arXiv 2405.15362, 3). Of the ways to share them between
    forward and backward, and to wait at the turns, this takes one in which no two actions of a device meet, and which
    holds the least.
    """
    p = devices
    _, block = min(_blocks(p, down, up))
    rows: list[list[tuple[int, Action]]] = [[] for _ in range(p)]
    for r, times in enumerate(block):
        for (stage, op), time in zip(_actions(p, r), times, strict=True):
            rows[r] += [(time + PERIOD * i, Action(stage, op, i)) for i in range(microbatches)]
    return [tuple(action for _, action in sorted(row)) for row in rows]


def _actions(p: int, r: int) -> list[tuple[int, str]]:
    near, far = r, 2 * p - 1 - r
    return [(near, "F"), (far, "F"), (far, "I"), (near, "I"), (far, "W"), (near, "W")]


Block = tuple[tuple[int, ...], ...]


@cache
def _blocks(p: int, down: int, up: int) -> tuple[tuple[tuple[int, int], Block], ...]:
    """(most that a device holds, how long one micro-batch takes) and the times of each block that can be repeated."""
    found = []
    for a, b in product(range(1, down), range(1, up)):  # steps of the forwards, the rest is that of the backwards
        for turns in product(range(PERIOD), repeat=3):
            block = tuple(_with_weights(times) for times in _times(p, (a, b, up - b, down - a), turns))
            if all(len({time % PERIOD for time in times}) == PERIOD for times in block):
                held = max(times[4] - times[1] + times[5] - times[0] for times in block)
                found.append(((held, max(map(max, block))), block))
    return tuple(found)


def _times(p: int, steps: Sequence[int], turns: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """Per device: when stage r runs F, when stage 2p-1-r does, when that one runs I, and when stage r does."""
    down, up, back, home = steps
    far = (p - 1) * down + 1 + turns[0]
    back_at = far + (p - 1) * up + 1 + turns[1]
    near = back_at + (p - 1) * back + 1 + turns[2]
    for r in range(p):
        yield r * down, far + (p - 1 - r) * up, back_at + r * back, near + (p - 1 - r) * home


def _with_weights(times: tuple[int, int, int, int]) -> tuple[int, ...]:
    """With both W, each as soon after its I as there is room."""
    taken = {time % PERIOD for time in times}
    placed = list(times)
    for after in times[2:]:
        time = next((t for t in range(after + 1, after + 1 + PERIOD) if t % PERIOD not in taken), after)
        taken.add(time % PERIOD)
        placed.append(time)
    return tuple(placed)
