"""Hypothesis strategies: schedules of every shape, reordered and damaged ones, and texts of tables."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume
from hypothesis import strategies as st

from pipelab.schedules import Action, Schedule, Slot, build_schedule, recipes
from tests import tables

NAMES = sorted(recipes())
WHOLE = [name for name in NAMES if build_schedule(name, 2, 4).ops <= {"F", "B", "U"}]  # no backward in two pieces


def allowed_microbatches(name: str, p: int, v: int, most: int = 20) -> list[int]:
    return [m for m in range(1, most + 1) if recipes()[name].check(p, m, v) is None]


@st.composite
def shapes(
    draw: st.DrawFn, names: list[str] = NAMES, max_p: int = 8, max_m: int = 20, max_v: int = 4
) -> tuple[str, int, int, int]:
    """(name, p, m, v) that the recipe of that name can build."""
    name = draw(st.sampled_from(names))
    p = draw(st.integers(1, max_p))
    known = recipes()[name].chunks
    v = draw(st.integers(1, max_v)) if known is None else known
    allowed = allowed_microbatches(name, p, v, max(max_m, 2 * p))
    assume(allowed)
    return name, p, draw(st.sampled_from(allowed)), v


@st.composite
def schedules(draw: st.DrawFn, names: list[str] = NAMES, max_p: int = 8, max_m: int = 20, max_v: int = 4) -> Schedule:
    """What the generators write."""
    name, p, m, v = draw(shapes(names, max_p, max_m, max_v))
    return build_schedule(name, devices=p, microbatches=m, chunks=v)


def with_split_backward(schedule: Schedule, *, lazy: bool, first_input_gradient: bool) -> Schedule:
    """Each B as I and W: W right behind I, or (lazy) all W at the end, unless updates wait for them."""
    lazy = lazy and "U" not in schedule.ops
    programs = []
    for program in schedule.programs:
        row: list[Slot] = []
        late: list[Slot] = []
        for slot in program:
            assert isinstance(slot, Action)
            if slot.op != "B":
                row.append(slot)
                continue
            weights = replace(slot, op="W")
            if slot.stage > 0 or first_input_gradient:
                row.append(replace(slot, op="I"))
            (late if lazy and slot.stage > 0 else row).append(weights)
        programs.append((*row, *late))
    return replace(schedule, programs=tuple(programs))


def with_fused_pairs(schedule: Schedule) -> Schedule:
    """1F1B with each (F, B) pair of its steady state in one slot."""
    programs = []
    for device, program in enumerate(schedule.programs):
        warmup = min(schedule.devices - 1 - device, schedule.microbatches)
        pairs = 2 * (schedule.microbatches - warmup)
        steady = program[warmup : warmup + pairs]
        fused = zip(steady[::2], steady[1::2], strict=True)
        programs.append((*program[:warmup], *fused, *program[warmup + pairs :]))
    return replace(schedule, programs=tuple(programs))


@st.composite
def sound_tables(draw: st.DrawFn, max_p: int = 4, max_m: int = 8, max_v: int = 3) -> Schedule:
    """Generated tables, also with R, with split backwards, with fused slots, forwards only, and tables by hand."""
    kind = draw(st.sampled_from(["plain", "plain", "recompute", "split", "fused", "forward", "by hand"]))
    if kind == "by hand":
        return tables.read(tables.SOUND[draw(st.sampled_from(sorted(tables.SOUND)))])
    if kind == "fused":
        return with_fused_pairs(draw(schedules(["1f1b"], max_p, max_m)))
    schedule = draw(schedules(WHOLE if kind == "split" else NAMES, max_p, max_m, max_v))
    if kind == "recompute":
        return schedule.with_recompute()
    if kind == "split":
        lazy, first = draw(st.booleans()), draw(st.booleans())
        return with_split_backward(schedule, lazy=lazy, first_input_gradient=first)
    return schedule.forward_part() if kind == "forward" else schedule


@st.composite
def reordered(draw: st.DrawFn, source: st.SearchStrategy[Schedule] | None = None) -> Schedule:
    """A sound table whose devices run the same slots in another order: a few swaps, or shuffled altogether."""
    schedule = draw(sound_tables() if source is None else source)
    programs = [list(program) for program in schedule.programs]
    if draw(st.integers(0, 3)) == 0:
        programs = [draw(st.permutations(program)) for program in programs]
    else:
        for _ in range(draw(st.integers(0, 4))):
            row = programs[draw(st.integers(0, len(programs) - 1))]
            if len(row) > 1:
                k = draw(st.integers(0, len(row) - 2))
                other = draw(st.sampled_from([k + 1, k + 1, len(row) - 1]))
                row[k], row[other] = row[other], row[k]
    return replace(schedule, name="reordered", programs=tuple(map(tuple, programs)))


DAMAGES = ["drop", "duplicate", "move", "unknown stage", "unknown micro-batch"]


@st.composite
def damaged(draw: st.DrawFn, kinds: list[str] = DAMAGES) -> Schedule:
    """A table that was sound until one thing was done to it that no table survives."""
    kind = draw(st.sampled_from(kinds))
    schedule = draw(schedules([name for name in WHOLE if name != "chimera"], 4, 6, 2))  # a stage with one home
    if draw(st.booleans()):
        schedule = with_split_backward(schedule, lazy=draw(st.booleans()), first_input_gradient=True)
    programs = [list(program) for program in schedule.programs]
    device = draw(st.integers(0, len(programs) - 1))
    row = programs[device]
    # Stage 0 may do without I, so dropping that one would do no harm.
    spots = [k for k, a in enumerate(row) if not (isinstance(a, Action) and a.op == "I" and a.stage == 0)]
    k = draw(st.sampled_from(spots))
    action = row[k]
    assert isinstance(action, Action)
    if kind == "drop" or (kind == "move" and len(programs) == 1):
        del row[k]
    elif kind == "duplicate":
        row.insert(draw(st.integers(0, len(row))), action)
    elif kind == "move":
        other = programs[(device + draw(st.integers(1, len(programs) - 1))) % len(programs)]
        del row[k]
        other.insert(draw(st.integers(0, len(other))), action)
    elif kind == "unknown stage":
        row[k] = replace(action, stage=schedule.stages + draw(st.integers(0, 2)))
    else:
        row[k] = replace(action, microbatch=schedule.microbatches + draw(st.integers(0, 2)))
    result = replace(schedule, name=f"damaged ({kind})", programs=tuple(map(tuple, programs)))
    assume(not result.forward_only)  # without its only backward, a table is one for evaluation, and sound
    return result


def actions(max_stage: int = 12, max_microbatch: int = 12) -> st.SearchStrategy[Action]:
    return st.builds(
        Action,
        stage=st.integers(0, max_stage),
        op=st.sampled_from("FBIWRU"),
        microbatch=st.integers(0, max_microbatch),
    )


def slots() -> st.SearchStrategy[Slot]:
    """An action, or several fused."""
    return st.one_of(actions(), st.lists(actions(), min_size=2, max_size=4).map(tuple))


def programs() -> st.SearchStrategy[tuple[tuple[Slot, ...], ...]]:
    """Any words in any order on 1 to 5 devices: a table's text need make no sense to be read back."""
    row = st.lists(slots(), min_size=1, max_size=8).map(tuple)
    return st.lists(row, min_size=1, max_size=5).map(tuple)


# Eighths add up without rounding, in whatever order they are added.
eighths = st.integers(1, 64).map(lambda n: n / 8)
