"""The checker: is a schedule sound, and if not, what exactly is wrong with it?

Every violation is found at once and comes with a stable code, a place and a sentence that names what blocks it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipelab.errors import ConfigurationError, ScheduleError
from pipelab.schedules.action import OPS, Action, actions_of, format_slot
from pipelab.schedules.cycles import rings
from pipelab.schedules.dependencies import GRADIENT, LOCAL, Edge, Need, Place, SlotGraph, needs
from pipelab.schedules.reserved import reservable
from pipelab.schedules.schedule import Schedule, TimeTable
from pipelab.schedules.updates import faults
from pipelab.schedules.wire import room_for

__all__ = ["CODES", "Violation", "check_schedule", "require_sound", "why_blocked"]

CODES = {
    "missing": "an action that the table needs is not in it",
    "duplicate": "an action stands in the table twice, or a backward is done whole and in halves",
    "unknown": "an action of a stage or micro-batch that does not exist",
    "misplaced": "an action on a device that does not hold its stage",
    "order": "an action before another of the same device that it needs",
    "no-input": "an action whose input never comes",
    "wait-cycle": "devices that wait for each other in a ring",
    "too-early": "an action of a timed table that starts before its input is there",
    "updates": "a stage that is updated more often than the others",
    "wrong-update": "a gradient that goes into the update of other micro-batches",
    "lost-gradient": "a gradient that no update ever uses",
    "no-version": "a forward before the update that makes the version of the weights that it uses",
    "version-gone": "a backward whose version of the weights has been written over (without a stash)",
}


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong: ``code`` (one of CODES), where, which action, what blocks it, and why, in a sentence.

    ``position`` counts slots of the device's program (for a timed table: time slots); None where the action is not in
    the table. ``cycle`` names, for a wait cycle, each (device, slot that cannot start, action it waits for).
    """

    code: str
    device: int
    position: int | None
    action: Action
    blocker: Action | None
    message: str
    cycle: tuple[tuple[int, str, str], ...] = ()

    def __str__(self) -> str:
        return f"[{self.code}] {self.message}"


@reservable
def check_schedule(
    table: Schedule | TimeTable, *, outstanding: int | None = None, stash: bool = True, sends: str = "asynchronous"
) -> list[Violation]:
    """Everything that is wrong with ``table``; an empty list when it is sound.

    A Schedule is checked as an order: does every slot get to run? A TimeTable is also checked as times: is each input
    there when its slot starts? The wire delivers in the order of sending. A device that needs a message takes all
    that were sent before it. This never adds a wait, because the earlier ones were sent earlier. ``sends`` is one of
    ``wire.SENDS``: "blocking" and "batched" sends wait for their receiver. ``outstanding`` bounds how many messages may
    be sent and not yet taken per (kind, source, destination): so many wait for no one, and with "asynchronous" sends
    those beyond it block. A table that needs more room shows the wait cycles that this makes. ``stash=False``: no
    version of the weights is kept but the newest, so an update between a forward and its backward is a fault.
    """
    if not isinstance(table, Schedule | TimeTable):
        raise ConfigurationError(
            f"check_schedule takes a Schedule or a TimeTable, got {type(table).__name__}; Schedule.from_csv reads text"
        )
    outstanding = room_for(sends, outstanding)
    kept = stash or (isinstance(table, Schedule) and "U" not in table.ops)
    if isinstance(table, Schedule) and outstanding is None and kept and table.resolved is not None:
        return []  # what follows is for tables with which something is wrong
    timed = isinstance(table, TimeTable)
    schedule = table.schedule() if isinstance(table, TimeTable) else table
    rows = table.rows if isinstance(table, TimeTable) else table.programs
    graph = SlotGraph(rows, schedule.placement) if timed else schedule.graph
    if not schedule.stages or not schedule.microbatches:
        nothing = "the table is empty: it needs at least 0F0, the forward of micro-batch 0 through stage 0"
        return [Violation("missing", 0, None, Action(0, "F", 0), None, nothing)]
    found = [
        *_unknown_or_misplaced(graph, schedule),
        *_duplicates(graph),
        *_missing(graph, schedule),
        *_inputs(graph, schedule, timed=timed),
        *(Violation(*fault) for fault in faults(schedule, graph, timed=timed, stash=stash)),
    ]
    if not timed:
        found += _wait_cycles(graph, outstanding, batched=sends == "batched")
    return sorted(found, key=lambda v: (v.device, -1 if v.position is None else v.position))


def require_sound(
    schedule: Schedule, *, outstanding: int | None = None, sends: str = "asynchronous", rings: bool = True
) -> None:
    """Raise ScheduleError with all violations unless ``schedule`` is sound (with such sends, see ``check_schedule``).

    Without ``rings`` devices may wait for each other in a ring: who runs it will meet that.
    """
    found = check_schedule(schedule, outstanding=outstanding, sends=sends)
    violations = [violation for violation in found if rings or violation.code != "wait-cycle"]
    if violations:
        raise ScheduleError.refuse(schedule.name, violations)


def _unknown_or_misplaced(graph: SlotGraph, schedule: Schedule) -> Iterator[Violation]:
    for action, places in graph.places.items():
        for place in places:
            at = (place.device, place.position, action, None)
            homes = schedule.placement[action.stage] if 0 <= action.stage < schedule.stages else None
            if action.op not in OPS:
                yield Violation("unknown", *at, f"device {place.device} runs {action}, but ops are {', '.join(OPS)}")
            elif homes is None:
                limit = f"there are stages 0..{schedule.stages - 1}"
                yield Violation("unknown", *at, f"device {place.device} runs {action}, but {limit}")
            elif not 0 <= action.microbatch < schedule.microbatches:
                limit = f"there are micro-batches 0..{schedule.microbatches - 1}"
                yield Violation("unknown", *at, f"device {place.device} runs {action}, but {limit}")
            elif place.device not in homes:
                where = " and ".join(f"device {home}" for home in homes) or "no device"
                sentence = f"device {place.device} runs {action}, but stage {action.stage} lives on {where}"
                yield Violation("misplaced", *at, sentence)


def _duplicates(graph: SlotGraph) -> Iterator[Violation]:
    for action, places in graph.places.items():
        first = places[0]
        for place in places[1:]:
            sentence = (
                f"device {place.device} runs {action} at position {place.position}, but it already stands on device "
                f"{first.device} at position {first.position}"
            )
            yield Violation("duplicate", place.device, place.position, action, action, sentence)
        whole = Action(action.stage, "B", action.microbatch)
        if action.op in "IW" and whole in graph.places:
            sentence = f"{action} repeats half of {whole}: a backward is whole (B) or in halves (I and W), not both"
            yield Violation("duplicate", first.device, first.position, action, whole, sentence)


def _missing(graph: SlotGraph, schedule: Schedule) -> Iterator[Violation]:
    there = graph.places
    for stage, homes in enumerate(schedule.placement):
        for i in range(schedule.microbatches):
            f, b, half_i, half_w = (Action(stage, op, i) for op in "FBIW")
            lacking: list[tuple[Action, str]] = []
            if f not in there:
                lacking.append((f, f"stage {stage} never runs micro-batch {i} forward"))
            if not schedule.forward_only and b not in there:
                if half_i in there and half_w not in there:
                    lacking.append(
                        (
                            half_w,
                            f"{half_i} computes the gradient of the input, and no action computes that of the weights",
                        )
                    )
                elif half_w in there and half_i not in there and stage > 0:
                    lacking.append((half_i, f"stage {stage - 1} waits for a gradient that {half_w} does not compute"))
                elif half_i not in there and half_w not in there:
                    lacking.append((b, f"stage {stage} never runs micro-batch {i} backward"))
            for action, reason in lacking:
                device = homes[0] if homes else 0
                owner = f"device {device}" if homes else "no device"
                where = [p.device for a in (f, b, half_i, half_w) for p in there.get(a, ())]
                if where:
                    device = where[0]
                    owner = f"device {device}"
                yield Violation("missing", device, None, action, None, f"{action} is missing on {owner}: {reason}")


def _inputs(graph: SlotGraph, schedule: Schedule, *, timed: bool) -> Iterator[Violation]:
    """Needs that nobody supplies, that come too late on the same device, or (timed) that are not there yet."""
    halves = bool(schedule.ops & {"I", "W"})
    for action, places in graph.places.items():
        if not _exists(action, schedule):
            continue
        for place in places:
            for need in needs(action, schedule.stages, graph.places):
                pair = graph.supplier(need, place)
                violation = (
                    _nobody(need, action, place, timed=timed, halves=halves)
                    if pair is None
                    else _late(Edge(action, place, need.kind, *pair), timed=timed)
                )
                if violation is not None:
                    yield violation


def _exists(action: Action, schedule: Schedule) -> bool:
    known = 0 <= action.stage < schedule.stages and 0 <= action.microbatch < schedule.microbatches
    return known and action.op in OPS


def _nobody(need: Need, action: Action, place: Place, *, timed: bool, halves: bool) -> Violation:
    """``halves``: the table splits backwards, so that a half could have supplied it too."""
    supplier = need.suppliers[0]
    either = " or ".join(str(one) for one in need.suppliers if halves or one.op not in "IW" or one == supplier)
    what = {
        LOCAL: f"{either} is not in the table",
        GRADIENT: f"nobody computes its gradient: {either} is not in the table",
    }.get(need.kind, f"nobody computes its input: {either} is not in the table")
    when = f"t = {place.position}" if timed else f"position {place.position}"
    sentence = f"device {place.device} can never start {action} at {when}: {what}"
    return Violation("no-input", place.device, place.position, action, supplier, sentence)


def _late(edge: Edge, *, timed: bool) -> Violation | None:
    """The violation in an edge whose source is wrong whatever the other devices do, or None."""
    action, place, supplier, source = edge.action, edge.place, edge.supplier, edge.source
    at = (place.device, place.position, action, supplier)
    if edge.kind == LOCAL and source.device != place.device:
        sentence = (
            f"device {place.device} runs {action}, but what it needs from {supplier} stays on device {source.device}: "
            "a micro-batch goes forward and backward on the same device"
        )
        return Violation("order", *at, sentence)
    if source.device == place.device:
        if source < place:
            return None
        when = "t =" if timed else "position"
        reason = _ORDER_REASONS.get(supplier.op + action.op, "it takes its result")
        sentence = (
            f"device {place.device} runs {action} at {when} {place.position}, before {supplier} at {when} "
            f"{source.position}: {reason}"
        )
        return Violation("order", *at, sentence)
    if timed and source.position >= place.position:
        sentence = (
            f"device {place.device} starts {action} at t = {place.position}, but device {source.device} finishes "
            f"{supplier} only at t = {source.position + 1}"
        )
        return Violation("too-early", *at, sentence)
    return None


_ORDER_REASONS = {
    "FB": "a backward needs what its forward kept",
    "FI": "a backward needs what its forward kept",
    "FW": "a backward needs what its forward kept",
    "FR": "there is nothing to recompute before the forward has run",
    "RB": "recomputing after the backward is too late",
    "RI": "recomputing after the backward is too late",
    "RW": "recomputing after the backward is too late",
    "IW": "W finishes what its I began",
    "BU": "an update needs the gradient",
    "WU": "an update needs the gradient",
}


def _wait_cycles(graph: SlotGraph, outstanding: int | None, *, batched: bool) -> Iterator[Violation]:
    """One violation per ring of slots that wait for each other across devices."""
    for ring in rings(graph, outstanding, batched=batched):
        clauses, cycle = [], []
        for wait in ring:
            slot = format_slot(graph.programs[wait.device][wait.position] or ())
            if isinstance(wait.reason, Edge):
                awaited = str(wait.reason.supplier)
                came = f"cannot start {slot} before {awaited} comes from device {wait.other_device}"
            else:
                awaited = format_slot(graph.programs[wait.other_device][wait.other_position] or ())
                came = f"cannot go on to {slot}: {wait.reason}"
            clauses.append(f"device {wait.device} {came}")
            cycle.append((wait.device, slot, awaited))
        first = ring[0]
        slot_actions = actions_of(graph.programs[first.device][first.position] or ())
        action, blocker = (
            (first.reason.action, first.reason.supplier) if isinstance(first.reason, Edge) else (slot_actions[0], None)
        )
        sentence = "wait cycle: " + "; ".join(clauses) + "; so none of them ever starts"
        yield Violation("wait-cycle", first.device, first.position, action, blocker, sentence, tuple(cycle))


def why_blocked(schedule: Schedule, action: Action, device: int, finished: Mapping[Action, int]) -> Violation | None:
    """Why ``device`` cannot run ``action`` now, or None if it can: the reason behind a shell's or a widget's refusal.

    ``schedule`` gives stages, micro-batches and placement; ``finished`` maps each action that has finished to the
    device that ran it. The schedule's own table says what the action needs, so an R or I in it is waited for.
    """

    def blocked(code: str, blocker: Action | None, sentence: str) -> Violation:
        return Violation(code, device, None, action, blocker, sentence)

    if action.op not in OPS:
        return blocked("unknown", None, f"{action}: ops are {', '.join(OPS)}")
    if not 0 <= action.stage < schedule.stages:
        return blocked("unknown", None, f"{action}: there are stages 0..{schedule.stages - 1}")
    if not 0 <= action.microbatch < schedule.microbatches:
        return blocked("unknown", None, f"{action}: there are micro-batches 0..{schedule.microbatches - 1}")
    if device not in schedule.placement[action.stage]:
        homes = " and ".join(map(str, schedule.placement[action.stage]))
        return blocked("misplaced", None, f"{action} runs on device {homes}: stage {action.stage} lives there")
    if action in finished:
        return blocked("duplicate", action, f"{action} has already run on device {finished[action]}")
    table = {a: True for _, _, a in schedule.actions()}
    for need in needs(action, schedule.stages, table):
        done = [a for a in need.suppliers if a in finished]
        wanted = next((a for a in need.suppliers if a in table), need.suppliers[0])
        if not done:
            where = schedule.placement[wanted.stage]
            source = "this device" if where == (device,) else "device " + " or ".join(map(str, where))
            what = {LOCAL: "has not run yet", GRADIENT: "has not sent its gradient yet"}.get(
                need.kind, "has not sent its activation yet"
            )
            return blocked("no-input", wanted, f"{action} needs {wanted}, which {what} ({source})")
        if need.kind == LOCAL and finished[done[0]] != device:
            return blocked("order", done[0], f"{action} needs what {done[0]} kept on device {finished[done[0]]}")
    return None
