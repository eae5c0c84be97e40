"""Which version of a stage's weights each action of a timeline uses, and how many each device keeps. Pure Python.

Versions are those of ``schedules/updates.py``: update k of a stage makes version k, counted from 1. In a part of an
endless table they are counted like its micro-batches, from the oldest step that may still be on its way; a version of
before then is negative. What is kept, and until when, is the runtime's rule: at an update a version goes that no
micro-batch on its way uses and that no later forward can ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pipelab.schedules.action import Action, actions_of
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.updates import Part, ages, over, part_in, steps_in_flight, versions
from pipelab.timeline.timeline import Timeline

__all__ = ["Versions", "most_behind", "staleness", "versions_of"]

_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
Steps = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Versions:
    """Of a timeline with updates.

    ``used[a]`` is the version that a forward, a backward or a recomputation works with, or that an update makes;
    ``newest[a]`` the newest of its stage when it begins. ``forward[a]`` is the version of its forward, which differs
    where no versions are stashed. ``makers`` are the updates of this timeline by (stage, version). ``steps[r]`` are
    (time, versions kept from then on) of device r, of the stage of which it keeps most; ``peaks[r]`` the most.
    """

    used: Mapping[Action, int]
    newest: Mapping[Action, int]
    forward: Mapping[Action, int]
    makers: Mapping[tuple[int, int], Action]
    steps: tuple[Steps, ...]
    peaks: tuple[int, ...]

    def sentence(self, action: Action) -> str:
        """Such as "Uses version 3 of stage 1's weights, made by 1U2, two updates behind the newest."; "" if unknown."""
        if action not in self.used:
            return ""
        version, stage = self.used[action], action.stage
        if action.op == "U":
            return f"Makes version {version} of stage {stage}'s weights."
        made = self.makers.get((stage, version))
        by = f"made by {made}" if made is not None else "those it began with" if version == 0 else "made earlier"
        behind = self.newest[action] - version
        if self.forward[action] != version:
            return (
                f"Uses version {version} of stage {stage}'s weights, {by}; its forward used version "
                f"{self.forward[action]}, which is gone."
            )
        many = _WORDS[behind] if behind < len(_WORDS) else f"{behind}"
        late = f"{many} update{'' if behind == 1 else 's'} behind the newest" if behind else "the newest"
        return f"Uses version {version} of stage {stage}'s weights, {by}, {late}."


def staleness(schedule: Schedule) -> tuple[int, ...]:
    """By stage, how many updates a gradient misses at most: those since the version that it was computed with.

    0 where a schedule flushes: then weights change only when all gradients are there.

    >>> staleness(build_schedule("pipedream", devices=4, microbatches=4))
    (3, 2, 1, 0)
    """
    most = [0] * schedule.stages
    if "U" in schedule.ops:
        whole = schedule if schedule.updating is None else over(schedule, steps_in_flight(schedule) + 2)
        used, made = versions(whole), [0] * schedule.stages
        for program in whole.programs:
            waiting: dict[int, list[int]] = {}
            for action in (action for slot in program for action in actions_of(slot)):
                s = action.stage
                if action.op in "BW":
                    waiting.setdefault(s, []).append(used[Action(s, "F", action.microbatch)])
                elif action.op == "U":
                    most[s] = max([most[s], *(made[s] - version for version in waiting.pop(s, []))])
                    made[s] += 1
    return tuple(most)


def versions_of(timeline: Timeline) -> Versions | None:
    """Those of ``timeline``; None where its weights do not change on the way."""
    schedule = timeline.schedule
    if schedule.forward_only or (schedule.updating is None and "U" not in schedule.ops):
        return None
    key = ("versions", timeline.stash)
    if key not in schedule.kept:
        schedule.kept[key] = _of_table(schedule, stash=timeline.stash)
    found: _Found = schedule.kept[key]
    spans = timeline.span_at
    steps = tuple(
        (
            (timeline.start, float(found.first[r])),
            *((spans[r, k].start, float(count)) for k, count in found.kept[r] if (r, k) in spans),
        )
        for r in range(schedule.devices)
    )
    makers = {(a.stage, version): a for a, version in found.used.items() if a.op == "U"}
    peaks = tuple(int(max(count for _, count in row)) for row in steps)
    return Versions(found.used, found.newest, found.forward, makers, steps, peaks)


@dataclass(frozen=True)
class _Found:
    """What a table alone decides. ``kept[r]``: (position of an update, versions kept then); ``first[r]``: before it."""

    used: dict[Action, int]
    newest: dict[Action, int]
    forward: dict[Action, int]
    kept: tuple[tuple[tuple[int, int], ...], ...]
    first: tuple[int, ...]


class _Stage:
    """One stage's weights while its device walks through its program."""

    def __init__(self, behind: int, *, stash: bool) -> None:
        self._behind, self._stash = behind, stash
        self._kept, self._newest = {0}, 0
        self._on_its_way: dict[int, int] = {}
        """Micro-batch -> version of its forward."""

    @property
    def count(self) -> int:
        """How many versions are kept."""
        return len(self._kept)

    def run(self, action: Action, version: int) -> tuple[int, int, int]:
        """(version used or made, newest before, version of its forward); a forward uses ``version``."""
        newest, i = self._newest, action.microbatch
        if action.op == "U":
            self._update()
            return self._newest, newest, self._newest
        if action.op == "F":
            self._on_its_way[i] = version if self._stash else newest
        forward = self._on_its_way.get(i, newest)
        if action.op in "BW":
            self._on_its_way.pop(i, None)
        return forward if self._stash else newest, newest, forward

    def _update(self) -> None:
        """As the runtime does: what can still be asked for stays, and the old newest makes room if it is not."""
        in_use, needed_from = set(self._on_its_way.values()), self._newest + 1 - self._behind
        if self._stash:
            self._kept = {v for v in self._kept if v in in_use or v >= needed_from}
        else:
            self._kept = set()
        self._newest += 1
        self._kept.add(self._newest)


def _of_table(schedule: Schedule, *, stash: bool) -> _Found:
    here = part_in(schedule)
    whole = schedule if here is None else here.since
    used, behind = versions(whole), most_behind(whole)
    earlier = 0 if here is None else here.since.microbatches - here.whole.microbatches
    found = _Found({}, {}, {}, (), ())
    kept, first = [], []
    for r, program in enumerate(whole.programs):
        begin = 0 if here is None else _begins(here, r)
        end = begin + len(schedule.programs[r])
        now = {s: _Stage(behind.get(s, 0), stash=stash) for s in whole.stages_on(r)}
        rows: list[tuple[int, int]] = []
        at_first = 1
        for position, slot in enumerate(program[:end]):
            for action in (action for action in actions_of(slot) if action.stage in now):
                numbers = now[action.stage].run(action, used.get(action, 0))
                if position >= begin:
                    _note(found, action, numbers, earlier, whole)
            most = max((stage.count for stage in now.values()), default=1)
            if position < begin:
                at_first = most
            elif any(action.op == "U" for action in actions_of(slot)):
                rows.append((position - begin, most))
        kept.append(tuple(rows))
        first.append(at_first)
    return replace(found, kept=tuple(kept), first=tuple(first))


def _begins(here: Part, device: int) -> int:
    """Where the part begins in the table that has all that came before."""
    return len(here.since.programs[device]) - len(here.whole.programs[device]) + here.begin[device]


def _note(found: _Found, action: Action, numbers: tuple[int, int, int], earlier: int, whole: Schedule) -> None:
    """Under the numbers of the part: its micro-batches, and its versions, begin ``earlier`` micro-batches later."""
    mine = replace(action, microbatch=action.microbatch - earlier)
    fewer = earlier // whole.updating.every if whole.updating is not None else 0
    for into, number in zip((found.used, found.newest, found.forward), numbers, strict=True):
        into[mine] = number - fewer


def most_behind(whole: Schedule) -> dict[int, int]:
    """By stage, by how many updates a forward's version may be behind the newest, in any number of steps."""
    endless = whole if whole.updating is None else over(whole, steps_in_flight(whole) + 2)
    found: dict[int, int] = {}
    for forward, age in ages(endless).items():
        found[forward.stage] = max(age, found.get(forward.stage, 0))
    return found
