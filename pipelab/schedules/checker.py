"""The checker: is a schedule sound, and if not, what exactly is wrong with it?

Every violation is found at once and comes with a stable code, a place and a sentence that names what blocks it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from pipelab.errors import ScheduleError
from pipelab.schedules.action import Action, actions_of, format_slot
from pipelab.schedules.dependencies import GRADIENT, LOCAL, Edge, Need, Place, SlotGraph, needs
from pipelab.schedules.schedule import Schedule, TimeTable
from pipelab.schedules.wire import wire_waits

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


def check_schedule(table: Schedule | TimeTable, *, outstanding: int | None = None) -> list[Violation]:
    """Everything that is wrong with ``table``; an empty list when it is sound.

    A Schedule is checked as an order: does every slot get to run? A TimeTable is also checked as times: is each input
    there when its slot starts? The wire delivers in the order of sending, and a device that needs a message takes all
    that were sent before it; this never adds a wait, because the earlier ones were sent earlier. ``outstanding``
    bounds it: with at most that many messages sent and not yet taken per (kind, source, destination), sends block, and
    tables that lean on an endless buffer show the wait cycles that this makes.
    """
    timed = isinstance(table, TimeTable)
    schedule = table.schedule() if isinstance(table, TimeTable) else table
    rows = table.rows if isinstance(table, TimeTable) else table.programs
    graph = SlotGraph(rows, schedule.placement)
    found = [
        *_unknown_or_misplaced(graph, schedule),
        *_duplicates(graph),
        *_missing(graph, schedule),
        *_inputs(graph, schedule, timed=timed),
    ]
    if not timed:
        found += _wait_cycles(graph, outstanding)
    return sorted(found, key=lambda v: (v.device, -1 if v.position is None else v.position))


def require_sound(schedule: Schedule, *, outstanding: int | None = None) -> None:
    """Raise ScheduleError with all violations unless ``schedule`` is sound (with sends bounded by ``outstanding``)."""
    violations = check_schedule(schedule, outstanding=outstanding)
    if violations:
        raise ScheduleError.refuse(schedule.name, violations)


def _unknown_or_misplaced(graph: SlotGraph, schedule: Schedule) -> Iterator[Violation]:
    for action, places in graph.places.items():
        for place in places:
            at = (place.device, place.position, action, None)
            homes = schedule.placement[action.stage] if action.stage < schedule.stages else None
            if homes is None:
                limit = f"there are stages 0..{schedule.stages - 1}"
                yield Violation("unknown", *at, f"device {place.device} runs {action}, but {limit}")
            elif action.microbatch >= schedule.microbatches:
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
                    lacking.append((half_w, f"{half_i} computes the gradient of the input, nobody that of the weights"))
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
    for action, places in graph.places.items():
        if action.stage >= schedule.stages or action.microbatch >= schedule.microbatches:
            continue
        for place in places:
            for need in needs(action, schedule.stages, graph.places):
                pair = graph.supplier(need, place)
                violation = (
                    _nobody(need, action, place)
                    if pair is None
                    else _late(Edge(action, place, need.kind, *pair), timed=timed)
                )
                if violation is not None:
                    yield violation


def _nobody(need: Need, action: Action, place: Place) -> Violation:
    supplier = need.suppliers[0]
    either = " or ".join(map(str, need.suppliers))
    what = {
        LOCAL: f"{either} is not in the table",
        GRADIENT: f"nobody computes its gradient: {either} is not in the table",
    }.get(need.kind, f"nobody computes its input: {either} is not in the table")
    sentence = f"device {place.device} can never start {action} at position {place.position}: {what}"
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
    "IW": "W finishes what I began",
    "BU": "an update needs the gradient",
    "WU": "an update needs the gradient",
}


def _wait_cycles(graph: SlotGraph, outstanding: int | None) -> Iterator[Violation]:
    """One violation per ring of slots that wait for each other across devices."""
    waits: dict[tuple[int, int], list[tuple[int, int]]] = {}
    why: dict[tuple[tuple[int, int], tuple[int, int]], Edge | str] = {}
    for device, program in enumerate(graph.programs):
        for position in range(len(program)):
            node = (device, position)
            before = [(device, position - 1)] if position else []
            for edge in graph.edges_into(device, position):
                if edge.source.device == device:  # a wrong order on one device has its own violation
                    continue
                before.append(edge.source.slot)
                why[node, edge.source.slot] = edge
            waits[node] = before
    if outstanding is not None:
        for node, other, reason in wire_waits(graph, outstanding):
            waits[node].append(other)
            why.setdefault((node, other), reason)
    for ring in _rings(waits):
        yield _describe_ring(graph, ring, why)


def _describe_ring(
    graph: SlotGraph,
    ring: list[tuple[int, int]],
    why: Mapping[tuple[tuple[int, int], tuple[int, int]], Edge | str],
) -> Violation:
    hops = [(node, other) for node, other in pairwise([*ring, ring[0]]) if (node, other) in why]
    parts, cycle = [], []
    for node, other in hops:
        slot, target = (format_slot(graph.programs[d][k] or ()) for d, k in (node, other))
        reason = why[node, other]
        awaited = str(reason.supplier) if isinstance(reason, Edge) else target
        clause = (
            f"device {node[0]} cannot start {slot} before {awaited} comes from device {other[0]}"
            if isinstance(reason, Edge)
            else f"device {node[0]} cannot go on to {slot}: {reason}"
        )
        parts.append(clause)
        cycle.append((node[0], slot, awaited))
    node, other = hops[0]
    first = why[node, other]
    action = first.action if isinstance(first, Edge) else actions_of(graph.programs[node[0]][node[1]] or ())[0]
    blocker = first.supplier if isinstance(first, Edge) else None
    sentence = "wait cycle: " + "; ".join(parts) + "; so none of them ever starts"
    return Violation("wait-cycle", node[0], node[1], action, blocker, sentence, tuple(cycle))


def _rings(waits: Mapping[tuple[int, int], list[tuple[int, int]]]) -> Iterator[list[tuple[int, int]]]:
    """One shortest ring in each knot (strongly connected component) of the graph ``waits``; linear in its edges."""
    for members in _knots(waits):
        if len(members) > 1 or members[0] in waits[members[0]]:
            yield _shortest_ring(waits, set(members))


def _shortest_ring(
    waits: Mapping[tuple[int, int], list[tuple[int, int]]], inside: set[tuple[int, int]]
) -> list[tuple[int, int]]:
    start = min(inside, key=lambda node: (node[1], node[0]))
    parent: dict[tuple[int, int], tuple[int, int]] = {}
    frontier = [start]
    while frontier:
        following = []
        for node in frontier:
            for other in waits[node]:
                if other == start:
                    ring = [node]
                    while ring[-1] != start:
                        ring.append(parent[ring[-1]])
                    return ring[::-1]
                if other in inside and other not in parent:
                    parent[other] = node
                    following.append(other)
        frontier = following
    raise AssertionError("a knot has a ring through each of its slots")


def _knots(waits: Mapping[tuple[int, int], list[tuple[int, int]]]) -> Iterator[list[tuple[int, int]]]:
    """Tarjan's strongly connected components, without recursion (tables are long)."""
    index: dict[tuple[int, int], int] = {}
    low: dict[tuple[int, int], int] = {}
    stack: list[tuple[int, int]] = []
    on_stack: set[tuple[int, int]] = set()
    for root in waits:
        if root in index:
            continue
        work = [(root, iter(waits[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, rest = work[-1]
            for other in rest:
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(waits[other])))
                    break
                if other in on_stack:
                    low[node] = min(low[node], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    members = []
                    while True:
                        member = stack.pop()
                        on_stack.discard(member)
                        members.append(member)
                        if member == node:
                            break
                    yield members


def why_blocked(schedule: Schedule, action: Action, device: int, finished: Mapping[Action, int]) -> Violation | None:
    """Why ``device`` cannot run ``action`` now, or None if it can: the reason behind a shell's or a widget's refusal.

    ``schedule`` gives stages, micro-batches and placement; ``finished`` maps each action that has finished to the
    device that ran it. What the action needs is read from the schedule's own table, so that an R or I that stands
    there is waited for.
    """

    def blocked(code: str, blocker: Action | None, sentence: str) -> Violation:
        return Violation(code, device, None, action, blocker, sentence)

    if action.stage >= schedule.stages:
        return blocked("unknown", None, f"{action}: there are stages 0..{schedule.stages - 1}")
    if action.microbatch >= schedule.microbatches:
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
