"""Break it: take a sound schedule, drop, swap or start something early, and see what follows.

Three breaks make a table, and :func:`follow` says what follows from any table: what the checker finds, what would still
run, and who then waits for whom forever. Where nothing waits, it says what the gradients lack.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pipelab.errors import ConfigurationError
from pipelab.quantities import format_time
from pipelab.schedules.action import OPS, Action, Slot, actions_of, format_slot
from pipelab.schedules.checker import Violation, check_schedule
from pipelab.schedules.dependencies import ACTIVATION, LOCAL, Need, Place, SlotGraph, earliest_slots, needs
from pipelab.schedules.schedule import Schedule, TimeTable
from pipelab.simulation import CostModel, Costs, simulate
from pipelab.teaching.board.words import held, listed, microbatches
from pipelab.timeline import Timeline

__all__ = ["Consequence", "Stuck", "drop", "early_spots", "follow", "start_early", "swap"]

_TEXTBOOK = Costs(forward=1.0, backward=1.0)


# ---- three ways to break a schedule ----------------------------------------------------------------------------------


def drop(schedule: Schedule, device: int, position: int) -> Schedule:
    """``schedule`` without the slot at ``position`` of ``device``. Raises ConfigurationError if there is none."""
    slot = _slot(schedule, device, position)
    program = schedule.programs[device]
    rows = _with_row(schedule, device, (*program[:position], *program[position + 1 :]))
    return replace(schedule, name=f"{schedule.name} without {format_slot(slot)}", programs=rows)


def swap(schedule: Schedule, device: int, position: int) -> Schedule:
    """``schedule`` with the slot at ``position`` of ``device`` and the next one of that device changed round.

    Raises ConfigurationError if there is no such slot, or none behind it.
    """
    slot = _slot(schedule, device, position)
    program = schedule.programs[device]
    if position + 1 == len(program):
        hint = f"; try position {position - 1}" if position else ""
        raise ConfigurationError(f"{format_slot(slot)} is the last action of device {device}, so none follows it{hint}")
    behind = program[position + 1]
    rows = _with_row(schedule, device, (*program[:position], behind, slot, *program[position + 2 :]))
    name = f"{schedule.name} with {format_slot(behind)} before {format_slot(slot)}"
    return replace(schedule, name=name, programs=rows)


def start_early(schedule: Schedule, device: int, position: int) -> TimeTable:
    """The timetable of ``schedule``, every slot one column, with this slot one column before its input is there.

    An order has no times, so this break is made in the timetable of the earliest layout. Only a slot that waits for
    another device has a column to move to (:func:`early_spots` lists them). Raises ConfigurationError for any other,
    ScheduleError if ``schedule`` waits forever.
    """
    slot = _slot(schedule, device, position)
    rows = [list(row) for row in earliest_slots(schedule.programs, schedule.placement)]
    row = rows[device]
    column = _columns(row)[position]
    if column == 0 or row[column - 1] is not None:
        before = "time begins at t = 0" if column == 0 else f"{format_slot(row[column - 1] or ())} runs until then"
        raise ConfigurationError(
            f"{format_slot(slot)} starts at t = {column} on device {device}, and {before}, so it waits for no other "
            f"device; {_those_that_wait(schedule)}"
        )
    row[column - 1], row[column] = slot, None
    return TimeTable(tuple(map(tuple, rows)))


def early_spots(schedule: Schedule) -> tuple[tuple[int, int], ...]:
    """(device, position) of the slots that wait for another device: those that :func:`start_early` takes."""
    rows = earliest_slots(schedule.programs, schedule.placement)
    return tuple(
        (device, position)
        for device, row in enumerate(rows)
        for position, column in enumerate(_columns(row))
        if column > 0 and row[column - 1] is None
    )


def _those_that_wait(schedule: Schedule) -> str:
    spots = early_spots(schedule)
    if not spots:
        return "no action here waits for one"
    device, position = spots[0]
    return f"try {format_slot(schedule.programs[device][position])} (device {device}, position {position})"


def _columns(row: list[Slot | None] | tuple[Slot | None, ...]) -> list[int]:
    return [column for column, slot in enumerate(row) if slot is not None]


def _slot(schedule: Schedule, device: int, position: int) -> Slot:
    if not 0 <= device < schedule.devices:
        raise ConfigurationError(f"there is no device {device}; devices are 0..{schedule.devices - 1}")
    program = schedule.programs[device]
    if not 0 <= position < len(program):
        there = f"it has positions 0..{len(program) - 1}" if program else "it runs nothing"
        raise ConfigurationError(f"device {device} has no position {position}; {there}")
    return program[position]


def _with_row(schedule: Schedule, device: int, row: tuple[Slot, ...]) -> tuple[tuple[Slot, ...], ...]:
    return (*schedule.programs[:device], row, *schedule.programs[device + 1 :])


# ---- what follows ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stuck:
    """A device that waits forever: ``slot`` is where it stands, ``waits_for`` the action it lacks, both as text.

    Where the slot could never run at all, whatever comes (its stage lives elsewhere), ``waits_for`` is empty.
    ``behind`` is the device that would supply it and stands still itself; None where the cause lies here.
    """

    device: int
    position: int
    slot: str
    waits_for: str
    sentence: str
    behind: int | None = None


@dataclass(frozen=True)
class Consequence:
    """What follows from a table.

    ``violations`` is what the checker finds. ``ran`` is the timeline of all that would still run, each device in its
    order, up to where it stands; ``stuck`` who then stands forever, and why. ``sentences`` tell it, the most important
    first.
    """

    violations: tuple[Violation, ...]
    ran: Timeline
    stuck: tuple[Stuck, ...]
    sentences: tuple[str, ...]

    @property
    def hangs(self) -> bool:
        """Whether some device waits forever."""
        return bool(self.stuck)

    @property
    def sound(self) -> bool:
        """Whether the checker found nothing."""
        return not self.violations


def follow(table: Schedule | TimeTable, before: Schedule | None = None, costs: CostModel = _TEXTBOOK) -> Consequence:
    """What the checker says of ``table``, what would run of it, and what that leads to.

    ``before`` is the sound schedule that ``table`` was made of. With it, what a change costs is said, and a TimeTable
    keeps its placement and micro-batches; without it they are read off its cells. ``costs`` are those of the run. A
    TimeTable is checked as times; run, its devices keep their order and wait for what is not there yet.
    """
    if isinstance(table, TimeTable) and before is not None:
        schedule = table.schedule(name=before.name, placement=before.placement, weights=before.weights)
    elif isinstance(table, TimeTable):
        schedule = table.schedule()
    elif isinstance(table, Schedule):
        schedule = table
    else:
        raise ConfigurationError(f"follow takes a Schedule or a TimeTable, got {type(table).__name__}")
    violations = tuple(check_schedule(table))
    graph = schedule.graph
    reached = _reached(graph, schedule)
    programs = tuple(program[:count] for program, count in zip(schedule.programs, reached, strict=True))
    # Of the whole schedule, so that what never runs backward counts as held.
    ran = replace(simulate(replace(schedule, programs=programs), costs, check=False), schedule=schedule)
    stuck = tuple(_stuck(graph, schedule, reached))
    early = tuple(_early(violations)) if isinstance(table, TimeTable) else ()
    wrong = tuple(check_schedule(schedule)) if early else violations  # in the order alone
    trains = not schedule.forward_only or (before is not None and not before.forward_only)
    lacking = tuple(_lacking(ran)) if trains else ()
    if stuck:
        told = _standstill(ran, schedule, stuck, violations)
    elif lacking or wrong:
        told = lacking or tuple(violation.message for violation in wrong)
    else:
        told = _cost(ran, before, costs, early=bool(early))
    return Consequence(violations, ran, stuck, (*early, *told))


def _reached(graph: SlotGraph, schedule: Schedule) -> tuple[int, ...]:
    """How many slots of each device run before it stands still."""
    ran: set[tuple[int, int]] = set()
    for device, position, _ in graph.topological():
        arrived_here = position == 0 or (device, position - 1) in ran
        if arrived_here and _why_never(graph, schedule, device, position, ran) is None:
            ran.add((device, position))
    return tuple(sum((r, k) in ran for k in range(len(program))) for r, program in enumerate(schedule.programs))


@dataclass(frozen=True)
class _Lack:
    """Why a slot cannot run: the action it waits for (None: it could never run there), and why, in a clause.

    ``other`` is the device that would supply it, if there is one and it stands still itself.
    """

    awaited: Action | None
    clause: str
    other: int | None = None


def _why_never(
    graph: SlotGraph, schedule: Schedule, device: int, position: int, ran: set[tuple[int, int]]
) -> _Lack | None:
    """What keeps a slot from running when just the slots in ``ran`` do, or None."""
    for part, action in enumerate(actions_of(schedule.programs[device][position])):
        impossible = _impossible(action, schedule, device)
        if impossible is not None:
            return _Lack(None, impossible)
        place = Place(device, position, part)
        for need in needs(action, schedule.stages, graph.places):
            lack = _unmet(graph, place, need, ran)
            if lack is not None:
                return lack
    return None


def _impossible(action: Action, schedule: Schedule, device: int) -> str | None:
    if action.op not in OPS or not 0 <= action.stage < schedule.stages:
        return f"there is no such action, because stages are 0..{schedule.stages - 1}"
    if not 0 <= action.microbatch < schedule.microbatches:
        return f"micro-batches are 0..{schedule.microbatches - 1}"
    if device not in schedule.placement[action.stage]:
        homes = listed(f"device {home}" for home in schedule.placement[action.stage]) or "no device"
        return f"stage {action.stage} lives on {homes}"
    return None


def _unmet(graph: SlotGraph, place: Place, need: Need, ran: set[tuple[int, int]]) -> _Lack | None:
    pair = graph.supplier(need, place)
    if pair is None:
        kind = {LOCAL: "nothing was kept for it", ACTIVATION: "its input never comes"}
        what = kind.get(need.kind, "its gradient never comes")
        return _Lack(need.suppliers[0], f"{need.suppliers[0]} is not in the table, so {what}")
    supplier, source = pair
    if source.slot == place.slot and source.part < place.part:
        return None
    if source.device == place.device and source >= place:
        return _Lack(supplier, f"it needs {supplier}, which comes after it in the same row")
    if need.kind == LOCAL and source.device != place.device:
        return _Lack(supplier, f"it needs what {supplier} kept, and that stays on device {source.device}")
    return None if source.slot in ran else _Lack(supplier, f"it needs {supplier}", source.device)


def _stuck(graph: SlotGraph, schedule: Schedule, reached: tuple[int, ...]) -> Iterator[Stuck]:
    ran = {(device, position) for device, count in enumerate(reached) for position in range(count)}
    for device, position in enumerate(reached):
        if position == len(schedule.programs[device]):
            continue
        slot = format_slot(schedule.programs[device][position])
        lack = _why_never(graph, schedule, device, position, ran)
        assert lack is not None, "a device stands still only for a reason"
        clause = lack.clause
        if lack.other is not None:
            there = schedule.programs[lack.other][reached[lack.other]]
            clause += f", and device {lack.other} itself waits at {format_slot(there)}"
        sentence = f"Device {device} waits at {slot} forever: {clause}."
        yield Stuck(device, position, slot, "" if lack.awaited is None else str(lack.awaited), sentence, lack.other)


# ---- in words --------------------------------------------------------------------------------------------------------


def _standstill(
    ran: Timeline, schedule: Schedule, stuck: tuple[Stuck, ...], violations: tuple[Violation, ...]
) -> tuple[str, ...]:
    """That the step never ends, and why: causes first, then who waits because of them."""
    total = sum(map(len, schedule.programs))
    done = len(ran.spans) + len(ran.updates)
    when = f"after {_time(ran.end, ran.unit)}" if done else "from the start"
    stand = "1 device waits" if len(stuck) == 1 else f"{len(stuck)} devices wait"
    headline = f"The step never ends: {when} nothing moves any more, {done} of {total} actions have run and {stand}."
    rings = [sorted({device for device, _, _ in violation.cycle}) for violation in violations if violation.cycle]
    ringed = tuple(f"Devices {listed(ring)} wait for each other in a ring." for ring in rings)
    causes = tuple(one.sentence for one in stuck if one.behind is None)
    others = tuple(one.sentence for one in stuck if one.behind is not None)
    return (headline, *causes, *ringed, *others)


def _time(value: float, unit: str) -> str:
    return "1 unit" if (value, unit) == (1, "units") else format_time(value, unit)


def _lacking(ran: Timeline) -> Iterator[str]:
    """Per stage, the micro-batches whose gradient its update would lack."""
    schedule = ran.schedule
    there = {(action.stage, action.microbatch) for _, _, action in schedule.actions() if action.op in ("B", "W")}
    m = schedule.microbatches
    for stage in range(schedule.stages):
        lacks = [i for i in range(m) if (stage, i) not in there]
        if lacks:
            which = f"micro-batch {lacks[0]}" if len(lacks) == 1 else f"micro-batches {listed(lacks)}"
            gets = f"stage {stage} gets no gradient from {which}"
            yield f"Nothing hangs, but {gets}: its update would use {m - len(lacks)} of {microbatches(m)}."


def _early(violations: tuple[Violation, ...]) -> Iterator[str]:
    """For each slot that starts before its input is there, what that would mean."""
    for violation in violations:
        if violation.code == "too-early":
            said = violation.message
            yield f"{said[0].upper()}{said[1:]}. It would compute from an input that is not there yet."


def _cost(ran: Timeline, before: Schedule | None, costs: CostModel, *, early: bool) -> tuple[str, ...]:
    """What a sound order takes, and against ``before``."""
    sound = "The order is sound: every action can run"
    if early:
        sound = "The order is sound: if the devices keep to it, each waits until its input is there"
    takes = _time(ran.makespan, ran.unit)
    if before is None or before is ran.schedule:
        return (f"{sound}. It takes {takes}.",)
    old = simulate(before, costs, check=False)
    change = ran.makespan - old.makespan
    if abs(change) < 1e-9 * max(1.0, old.makespan):
        length = f"as long as before, {takes}"
    else:
        length = f"{takes}, {_time(abs(change), ran.unit)} {'longer' if change > 0 else 'shorter'} than before"
    peaks = enumerate(zip(old.peak_microbatches, ran.peak_microbatches, strict=True))
    moved = [f"device {r} holds at most {held(new)} (before: {was:.3g})" for r, (was, new) in peaks if was != new]
    memory = f"In flight: {listed(moved)}." if moved else "Each device holds as many micro-batches as before."
    return (f"{sound}. It takes {length}.", memory)
