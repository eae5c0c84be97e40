"""Schedules that no generator writes: sound ones in any order and on any devices, and what damage makes of them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from pipelab.schedules import Action, Schedule, Slot
from tests import oracle

PLACEMENTS = ["looped", "V-shaped", "two-way", "scattered"]


@st.composite
def placements(draw: st.DrawFn, p: int, stages: int) -> tuple[tuple[int, ...], ...]:
    """Stage -> devices. Scattered, a stage lives on one or two devices of any, and a device may have none."""
    kind = draw(st.sampled_from(PLACEMENTS))
    if kind == "looped":
        return tuple((s % p,) for s in range(stages))
    if kind == "V-shaped":
        return tuple((min(s % (2 * p), 2 * p - 1 - s % (2 * p)),) for s in range(stages))
    if kind == "two-way":
        return tuple(tuple(sorted({s % p, (p - 1 - s) % p})) for s in range(stages))
    homes = st.lists(st.integers(0, p - 1), min_size=1, max_size=2, unique=True).map(sorted).map(tuple)
    return tuple(draw(homes) for _ in range(stages))


@st.composite
def sound(draw: st.DrawFn, max_p: int = 4, max_m: int = 5) -> Schedule:
    """Any order that the needs of its actions allow, by the oracle's rules.

    Backwards are whole, in halves, or on stage 0 a lone W, each (stage, micro-batch) as it is drawn; some recompute.
    A slot takes more actions that could run by then. Idle cells stand anywhere. Some micro-batches are larger.
    """
    p = draw(st.integers(1, max_p), label="p")
    stages = draw(st.integers(p, 2 * p), label="stages")
    m = draw(st.integers(1, max_m), label="m")
    placement = draw(placements(p, stages))
    ways = draw(st.sampled_from([["B"], ["IW"], ["B", "IW", "W"]]))
    recomputing = draw(st.sampled_from([[False], [True], [False, True]]))
    fusing, idling = draw(st.booleans()), draw(st.booleans())
    where: dict[Action, int] = {}
    for s in range(stages):
        for i in range(m):
            home = draw(st.sampled_from(placement[s]))
            way = draw(st.sampled_from(ways))
            ops = "F" + ("IW" if way == "W" and s > 0 else way) + "R" * draw(st.sampled_from(recomputing))
            where.update((Action(s, op, i), home) for op in ops)
    weights = [draw(st.integers(1, 3)) for _ in range(m)] if draw(st.integers(0, 3)) == 0 else None
    shell = Schedule("shell", ((),) * p, placement, (1.0,) * m)
    rows: list[list[Slot | None]] = [[] for _ in range(p)]
    done: dict[Action, int] = {}

    def able(device: int | None) -> list[Action]:
        left = [(a, home) for a, home in where.items() if a not in done and device in (None, home)]
        return [a for a, home in left if oracle.may_run(a, home, done, shell, where)]

    while ready := able(None):
        action = draw(st.sampled_from(ready))
        device = where[action]
        slot = [action]
        done[action] = device
        while fusing and draw(st.booleans()) and (more := able(device)):
            slot.append(draw(st.sampled_from(more)))
            done[slot[-1]] = device
        rows[device] += [None] * (idling and draw(st.integers(0, 2)))
        rows[device].append(slot[0] if len(slot) == 1 else tuple(slot))
    assert len(done) == len(where)
    return Schedule.from_rows(rows, name="random", placement=placement, weights=weights)


ORDER = ["swap", "later", "fuse"]
"""Damage after which every action still stands on its device, once."""
CONTENT = ["drop", "duplicate", "move", "op", "micro-batch", "stage"]


@st.composite
def hurt(draw: st.DrawFn, kinds: list[str] = ORDER + CONTENT) -> Schedule:
    """A sound schedule to which one to three things were done. It may be sound still."""
    schedule = draw(sound(3, 4))
    rows = [list(program) for program in schedule.programs]
    for _ in range(draw(st.integers(1, 3))):
        filled = [row for row in rows if row]
        if not filled:
            break
        row = draw(st.sampled_from(filled))
        k, other = (draw(st.integers(0, len(row) - 1)) for _ in range(2))
        kind, slot = draw(st.sampled_from(kinds)), row[k]
        number = draw(st.integers(0, 5))
        if kind == "swap":
            row[k], row[other] = row[other], row[k]
        elif kind == "later":
            row.insert(other, row.pop(k))
        elif kind == "fuse":
            row[k : k + 2] = [tuple(a for one in row[k : k + 2] for a in oracle.parts(one))]
        elif kind == "drop":
            del row[k]
        elif kind == "duplicate":
            row.insert(other, slot)
        elif kind == "move":
            del row[k]
            target = draw(st.sampled_from(rows))
            target.insert(draw(st.integers(0, len(target))), slot)
        else:
            change = {"op": {"op": draw(st.sampled_from("FBIWRU"))}, "micro-batch": {"microbatch": number}}
            parts = list(oracle.parts(slot))
            which = draw(st.integers(0, len(parts) - 1))
            parts[which] = replace(parts[which], **change.get(kind, {"stage": number}))
            row[k] = tuple(parts)
        rows = [[one[0] if isinstance(one, tuple) and len(one) == 1 else one for one in line] for line in rows]
    return replace(schedule, name="hurt", programs=tuple(map(tuple, rows)))
