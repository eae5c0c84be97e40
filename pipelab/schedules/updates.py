"""Schedules without a flush: weights change while micro-batches are on their way.

The table lists the updates, ``{stage}U{i}``. The k-th update of a stage makes version k of its weights, and version 0
is what it began with. ``Updating.rule`` says which version a forward uses; its backward uses the same one. Such a table
has no end: each step adds m micro-batches (:func:`over`), and what a step runs is a part of it (:func:`part`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from pipelab.errors import ConfigurationError
from pipelab.schedules.action import Action, Slot, Updating, actions_of
from pipelab.schedules.reserved import reserved

if TYPE_CHECKING:
    from pipelab.schedules.dependencies import Place, SlotGraph
    from pipelab.schedules.schedule import Schedule

__all__ = [
    "Part",
    "Updating",
    "ages",
    "carried",
    "faults",
    "groups",
    "one_f_one_b_with_updates",
    "over",
    "part",
    "part_in",
    "steps_in_flight",
    "under_way",
    "versions",
]

Fault: TypeAlias = "tuple[str, int, int | None, Action, Action | None, str]"


@reserved
def one_f_one_b_with_updates(devices: int, microbatches: int, every: int = 1) -> list[list[Action]]:
    """1F1B's order, and a U after each backward that completes a group of ``every``."""
    rows = []
    for r in range(devices):
        ahead = min(devices - 1 - r, microbatches)
        row = [Action(r, "F", i) for i in range(ahead)]
        for i in range(microbatches):
            if ahead + i < microbatches:
                row.append(Action(r, "F", ahead + i))
            row.append(Action(r, "B", i))
            if (i + 1) % every == 0:
                row.append(Action(r, "U", i))
        rows.append(row)
    return rows


@reserved
def versions(schedule: Schedule) -> dict[Action, int]:
    """The version of its stage's weights that each forward of a table with updates uses."""
    rule = schedule.updating or Updating()
    newest = _newest(schedule)
    if rule.rule == "delayed":
        return {forward: max(forward.microbatch // rule.every - 1, 0) for forward in newest}
    if rule.rule == "input":
        return {forward: newest.get(Action(0, "F", forward.microbatch), 0) for forward in newest}
    return newest


@reserved
def ages(schedule: Schedule) -> dict[Action, int]:
    """By how many updates the version that each forward uses is behind the newest that is there when it begins."""
    used = versions(schedule)
    return {forward: newest - used[forward] for forward, newest in _newest(schedule).items()}


def groups(schedule: Schedule) -> list[list[int]]:
    """Which micro-batches' gradients go into one update, in the order of the last stage's updates."""
    found: list[list[int]] | None = schedule.kept.get("groups")
    if found is None:
        found, last = [[]], schedule.stages - 1
        for *_, action in schedule.actions():
            if action.stage == last and action.op in "BW":
                found[-1].append(action.microbatch)
            elif action.stage == last and action.op == "U":
                found.append([])
        found = schedule.kept["groups"] = [group for group in found if group]
    return found


def _newest(schedule: Schedule) -> dict[Action, int]:
    """How often its stage has been updated before each forward."""
    found: dict[Action, int] = {}
    for program in schedule.programs:
        count: dict[int, int] = {}
        for action in (action for slot in program for action in actions_of(slot)):
            if action.op == "U":
                count[action.stage] = count.get(action.stage, 0) + 1
            elif action.op == "F":
                found[action] = count.get(action.stage, 0)
    return found


@dataclass(frozen=True)
class Part:
    """What one step runs of ``whole``: on device r the slots ``begin[r]`` to ``end[r] - 1``.

    ``first`` is the first micro-batch that comes in with this step. ``since`` is the table with more of what came
    before: only there the micro-batches that were on their way use the versions that they really used. Behind one that
    ``drains`` no forward comes.
    """

    whole: Schedule
    begin: tuple[int, ...]
    end: tuple[int, ...]
    first: int
    since: Schedule
    drains: bool


@reserved
def over(schedule: Schedule, steps: int) -> Schedule:
    """The table of ``steps`` steps of a schedule without a flush, with nothing left on its way at their end.

    >>> over(build_schedule("pipedream", devices=2, microbatches=2), 2).microbatches
    4
    """
    updating = _endless(schedule)
    if steps < 1:
        raise ConfigurationError(f"a table is of one step or more, got {steps}; try 1")
    made = schedule.kept.get(("over", steps))
    if made is None:
        m, p = schedule.microbatches * steps, schedule.devices
        rows = one_f_one_b_with_updates(p, m, updating.every)
        made = _schedule(schedule, rows, m)
        schedule.kept["over", steps] = made
    assert isinstance(made, type(schedule))
    return made


def steps_in_flight(schedule: Schedule) -> int:
    """How many steps back a micro-batch may have come in that is still on its way when a step ends, or 1."""
    return max(1, -(-(schedule.devices - 1) // schedule.microbatches))


def under_way(schedule: Schedule, steps: int) -> int:
    """How many micro-batches some device has not finished, ``steps`` steps after the pipeline was empty."""
    return 0 if schedule.updating is None else min(schedule.devices - 1, steps * schedule.microbatches)


def part(schedule: Schedule, before: int, *, drain: bool = False) -> Schedule:
    """What one more step runs, after ``before`` steps since the pipeline was last empty.

    Its micro-batches are counted from the first that may still be on its way: ``steps_in_flight`` steps earlier.
    ``drain``: instead of a step, what is left to do until the pipeline is empty.
    """
    _endless(schedule)
    farthest = steps_in_flight(schedule)
    earlier = min(max(before - farthest, 0), farthest)  # more would differ in nothing
    before = min(before, farthest)
    key = ("part", before, earlier, drain)
    if key not in schedule.kept:
        m = schedule.microbatches
        whole = over(schedule, before if drain else before + 1)
        begin = _where(schedule, before)
        end = tuple(map(len, whole.programs)) if drain else _where(schedule, before + 1)
        rows = [row[a:b] for row, a, b in zip(whole.programs, begin, end, strict=True)]
        made = _schedule(schedule, rows, whole.microbatches)
        since = over(schedule, whole.microbatches // m + earlier)
        made.graph.kept["part"] = Part(whole, begin, end, before * m, since, drain)
        schedule.kept[key] = made
    found: Schedule = schedule.kept[key]
    return found


def part_in(schedule: Schedule) -> Part | None:
    """Which part of an endless table ``schedule`` is; None for a table that begins and ends empty."""
    return None if schedule.updating is None else schedule.graph.kept.get("part")


def carried(schedule: Schedule) -> tuple[tuple[int, int, int], ...]:
    """(device, stage, micro-batch) of all that a device holds when a part of an endless table begins."""
    here = part_in(schedule)
    found = []
    for r, row in enumerate(() if here is None else here.whole.programs):
        before = [a for slot in row[: here.begin[r]] for a in actions_of(slot)]  # type: ignore[union-attr]
        begun = [(r, a.stage, a.microbatch) for a in before if a.op == "F"]
        over = {(r, a.stage, a.microbatch) for a in before if a.op in "BW"}
        found += [one for one in begun if one not in over]
    return tuple(found)


def _where(schedule: Schedule, before: int) -> tuple[int, ...]:
    """On each device, how many slots come before the forwards of the step after ``before`` steps."""
    first = before * schedule.microbatches
    programs = over(schedule, before + 1).programs
    return tuple(
        next(k for k, slot in enumerate(row) for a in actions_of(slot) if a.op == "F" and a.microbatch == first)
        for row in programs
    )


def _schedule(like: Schedule, rows: Sequence[Sequence[Slot]], microbatches: int) -> Schedule:
    weights = like.weights * (microbatches // like.microbatches)
    made = type(like)(like.name, tuple(map(tuple, rows)), like.placement, weights, like.updating)
    return made.with_recompute() if "R" in like.ops else made


def _endless(schedule: Schedule) -> Updating:
    if schedule.updating is None:
        raise ConfigurationError(
            f"schedule '{schedule.name}' is no schedule without a flush; build_schedule knows 'pipedream', "
            "'vertical-sync' and '2bw'"
        )
    return schedule.updating


# ---- what can be wrong with updates ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """Which updates a table's stages are to have: ``names[k]`` is the micro-batch that update k is called by.

    ``number[i]`` is the update that micro-batch i's gradient belongs to; none, where no update is meant for it.
    """

    names: tuple[int, ...]
    number: Mapping[int, int]

    def members(self, k: int) -> str:
        """The micro-batches of update k, in words."""
        found = sorted(i for i, number in self.number.items() if number == k)
        return f"micro-batch {found[0]}" if len(found) == 1 else f"micro-batches {', '.join(map(str, found))}"


def faults(schedule: Schedule, graph: SlotGraph, *, timed: bool, stash: bool) -> Iterator[Fault]:
    """What is wrong with the updates of a table: (code, device, position, action, blocker, sentence), as a Violation.

    A stage that several devices hold is left out: between devices an update has no place in the order.
    """
    lives = {s: _life(s, graph) for s, homes in enumerate(schedule.placement) if len(homes) == 1}
    trains = any(action.op in "BIWU" for life in lives.values() for _, action in life)
    if not trains or (schedule.updating is None and "U" not in schedule.ops):
        return
    plan = _plan(schedule, lives)
    used = versions(schedule)
    at = "t =" if timed else "position"
    for life in lives.values():
        updates = [(place, action) for place, action in life if action.op == "U"]
        wrong = list(_wrong_number(life, [action for _, action in updates], plan, schedule, graph))
        yield from wrong or _wrong_places(life, updates, plan, used, at)
        if not stash:
            yield from _gone(life, at)


def _life(stage: int, graph: SlotGraph) -> list[tuple[Place, Action]]:
    """The actions of a stage that lives on one device, in their order."""
    found = [
        (places[0], action)
        for action, places in graph.places.items()
        if action.stage == stage and places[0].device in graph.placement[stage]
    ]
    return sorted(found, key=lambda pair: pair[0])


def _taken(life: Sequence[tuple[Place, Action]]) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """(how each update of a stage is called, the gradients that have come since the one before it)."""
    names: list[int] = []
    taken: list[tuple[int, ...]] = []
    now: list[int] = []
    for _, action in life:
        if action.op == "U":
            names.append(action.microbatch)
            taken.append(tuple(sorted(now)))
            now = []
        elif action.op in "BW":
            now.append(action.microbatch)
    return tuple(names), tuple(taken)


def _plan(schedule: Schedule, lives: Mapping[int, Sequence[tuple[Place, Action]]]) -> _Plan:
    """What ``updating`` says; without it what most stages do, and of equally many the last one."""
    if schedule.updating is not None:
        n = schedule.updating.every
        whole = schedule.microbatches // n
        return _Plan(tuple(n * (k + 1) - 1 for k in range(whole)), {i: i // n for i in range(whole * n)})
    each = {s: _taken(lives[s]) for s in sorted(lives, reverse=True)}
    most = Counter(taken for _, taken in each.values()).most_common(1)[0][0]
    names = next(names for names, taken in each.values() if taken == most)
    return _Plan(names, {i: k for k, group in enumerate(most) for i in group})


def _wrong_number(
    life: Sequence[tuple[Place, Action]],
    updates: Sequence[Action],
    plan: _Plan,
    schedule: Schedule,
    graph: SlotGraph,
) -> Iterator[Fault]:
    """A stage that is updated more or less often than it should be."""
    if not life or len(updates) == len(plan.names):
        return
    place, action = life[0]
    device, s = place.device, action.stage
    is_, should = (f"{n} time{'' if n == 1 else 's'}" for n in (len(updates), len(plan.names)))
    told = f"stage {s} is updated {is_}, it should be {should}, as often as the others"
    if len(updates) > len(plan.names):
        last = next((one for one in reversed(updates) if one.microbatch not in plan.names), updates[-1])
        at = graph.places[last][0].position
        yield "updates", device, at, last, None, f"device {device} runs {last}, but {told}; leave {last} out"
        return
    there = {one.microbatch for one in updates}
    lacking = [i for i in plan.names if i not in there][: len(plan.names) - len(updates)]
    for i in lacking:
        missing = Action(s, "U", i)
        which = plan.members(plan.names.index(i)) if i in plan.number else f"micro-batch {i}"
        sentence = f"{missing} is missing on device {device}: {told}; put it behind the backward of {which}"
        yield "missing", device, None, missing, None, sentence
    if not lacking:
        sentence = f"device {device} runs {updates[-1]}, but {told}"
        yield "updates", device, graph.places[updates[-1]][0].position, updates[-1], None, sentence


def _wrong_places(
    life: Sequence[tuple[Place, Action]],
    updates: Sequence[tuple[Place, Action]],
    plan: _Plan,
    used: Mapping[Action, int],
    at: str,
) -> Iterator[Fault]:
    """Gradients on the wrong side of an update, and forwards before the version that they use."""
    done = 0
    for place, action in life:
        here = f"device {place.device} runs {action} at {at} {place.position}"
        where = (place.device, place.position, action)
        if action.op == "U":
            done += 1
        elif action.op == "F" and used.get(action, 0) > done:
            version = used[action]
            there = updates[version - 1] if version <= len(updates) else None
            makes = "no update makes" if there is None else f"only {there[1]} at {at} {there[0].position} makes"
            mend = f"the newest there is version {done}" + ("" if there is None else f"; put {there[1]} before it")
            sentence = f"{here} with version {version} of stage {action.stage}'s weights, which {makes}; {mend}"
            yield "no-version", *where, None if there is None else there[1], sentence
        elif action.op in "BW":
            yield from _wrong_side(place, action, done, updates, plan, at)


def _wrong_side(
    place: Place, action: Action, done: int, updates: Sequence[tuple[Place, Action]], plan: _Plan, at: str
) -> Iterator[Fault]:
    """``action``, a gradient behind ``done`` updates of its stage, if it belongs into another one than the next."""
    wanted = plan.number.get(action.microbatch)
    here = f"device {place.device} runs {action} at {at} {place.position}"
    where = (place.device, place.position, action)
    if done == len(updates) and (wanted is None or updates[wanted][1].microbatch != action.microbatch):
        last = updates[-1][1] if updates else None
        behind = "and the table lists no update" if last is None else f"behind {last}, the last update of its stage"
        sentence = f"{here}, {behind}: no update ever uses its gradient"
        sentence += "" if last is None or wanted is None else f"; put {updates[wanted][1]} behind it"
        yield "lost-gradient", *where, last, sentence
    elif wanted is None or wanted == done:
        return
    elif done > wanted and updates[wanted][1].microbatch != action.microbatch:
        source, early = updates[wanted]
        sentence = (
            f"device {source.device} runs {early} at {at} {source.position}, before {action} at {at} {place.position}: "
            f"this update takes the gradients of {plan.members(wanted)}; put {early} behind {action}"
        )
        yield "order", source.device, source.position, early, action, sentence
    elif done < wanted:
        taker, before = updates[done][1], updates[wanted - 1][1]
        sentence = (
            f"{here}, before {before}: its gradient would go into {taker}, which makes version {done + 1} of stage "
            f"{action.stage}'s weights from {plan.members(done)}; put {action} behind {before}"
        )
        yield "wrong-update", *where, before, sentence


def _gone(life: Sequence[tuple[Place, Action]], at: str) -> Iterator[Fault]:
    """Backwards whose version has been written over, where only the newest is kept."""
    used: dict[int, int] = {}
    done: list[tuple[Place, Action]] = []
    for place, action in life:
        if action.op == "U":
            done.append((place, action))
        elif action.op == "F":
            used[action.microbatch] = len(done)
        elif action.op in "BIW" and len(done) > (version := used.pop(action.microbatch, len(done))):
            source, update = done[version]
            sentence = (
                f"device {place.device} runs {action} at {at} {place.position}, whose forward used version {version} "
                f"of stage {action.stage}'s weights. {update} at {at} {source.position} has written version "
                f"{version + 1} over it. Keep versions (stash=True), or move {update} behind {action}"
            )
            yield "version-gone", place.device, place.position, action, update, sentence
