"""What is on its way between the steps of a schedule without a flush."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeAlias

from pipelab.errors import ScheduleError
from pipelab.quantities import ModelStates
from pipelab.runtime.device.stage import StageRunner
from pipelab.runtime.device.versions import Versions
from pipelab.runtime.device.worker import Worker
from pipelab.schedules.action import Action, actions_of
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.updates import ages, over, part, part_in, steps_in_flight
from pipelab.simulation.simulate import simulate
from pipelab.timeline.versions import most_behind, versions_of

__all__ = ["Flight", "part_of", "require_one_gradient"]


def part_of(schedule: Schedule, steps: int, *, drain: bool = False) -> Schedule:
    """What a step runs after ``steps`` steps since the pipeline was empty; of a table that flushes, all of it.

    A table with updates that no generator made begins and ends empty: there is nothing that would go on with it.
    """
    return schedule if schedule.updating is None else part(schedule, steps, drain=drain)


def require_one_gradient(schedule: Schedule) -> None:
    """Raise ScheduleError for a schedule whose micro-batches meet different weights."""
    if "U" in schedule.ops:
        raise ScheduleError(
            f"schedule '{schedule.name}' updates weights while micro-batches are on their way: there is no one "
            "gradient of the batch to compare with; pipelab.delayed_training computes, in one process, what it should "
            "arrive at"
        )


class Flight:
    """On this process's devices: stages with the micro-batches that they hold, and messages that wait to be used.

    ``steps`` counts those since the pipeline was empty, ``crashes`` those that have failed; ``sizes`` are of the
    micro-batches that may be on their way.
    ``make_versions(r, s, behind)`` readies a stage's weights.
    """

    def __init__(self, schedule: Schedule, make_versions: Callable[[int, int, int], Versions]) -> None:
        self.schedule, self._make = schedule, make_versions
        self.steps = self.crashes = 0
        self.sizes: list[int] = []
        self.runners: dict[tuple[int, int], StageRunner] = {}
        self._carried: dict[int, dict[Action, Any]] = {}
        self._told: dict[int, list[_Told]] = {}

    @cached_property
    def behind(self) -> dict[int, int]:
        """By stage, by how many updates a forward's version may be behind the newest."""
        return most_behind(self.schedule)

    @cached_property
    def most_versions(self) -> tuple[int, ...]:
        """By device, the most versions of a stage's weights that a step will keep."""
        whole = self.schedule
        if whole.updating is not None:
            whole = over(whole, steps_in_flight(whole) + 2)
        found = versions_of(simulate(whole, check=False))
        return (1,) * whole.devices if found is None else found.peaks

    @property
    def microbatches(self) -> int:
        """How many may be on their way."""
        return len(self.sizes)

    def runner(self, key: tuple[int, int], make: Callable[[], StageRunner]) -> StageRunner:
        """The stage on its device, the same in every step."""
        if key not in self.runners:
            self.runners[key] = make()
            self.runners[key].versions = self._make(*key, self.behind[key[1]])
        return self.runners[key]

    def take_off(self, workers: list[Worker], schedule: Schedule) -> None:
        """A step of ``schedule``, a part of the table, begins."""
        if not self.steps:  # a thread that could not be ended may have left something since
            self._let_go()
        if id(schedule) not in self._told:
            self._told[id(schedule)] = _told(schedule)
        for worker in workers:
            worker.carried = self._carried.get(worker.device, {})
            for s, runner in worker.runners.items():
                runner.ages, runner.recomputed, runner.behind = self._told[id(schedule)][s]

    def land(self, workers: list[Worker], sizes: list[int], *, drained: bool) -> None:
        """The step is over. ``sizes`` are of all micro-batches of its table."""
        m, kept = self.schedule.microbatches, 0
        if not drained:
            kept = min(self.steps + 1, steps_in_flight(self.schedule)) * m
        moved = len(sizes) - kept
        self.steps = 0 if drained else self.steps + 1
        self.sizes = sizes[moved:]
        for worker in workers:
            found = {replace(a, microbatch=a.microbatch - moved): mail for a, mail in worker.carried.items()}
            self._carried[worker.device], worker.carried = found, {}
            for runner in worker.runners.values():
                assert runner.versions is not None
                if drained:
                    runner.drop()
                    runner.versions.empty()
                else:
                    runner.pause(moved)
                    runner.versions.rest()

    def crash(self) -> None:
        """A step has failed: nothing of what was on its way can be used any more."""
        self.steps, self.sizes, self._carried = 0, [], {}
        self.crashes += 1
        self._let_go()

    def _let_go(self) -> None:
        """Of all that stages keep but the newest weights."""
        for runner in self.runners.values():
            runner.drop()
            if runner.versions is not None:
                runner.versions.empty()

    def peaks(self, r: int) -> Mapping[int, int]:
        """By stage on device r, the most versions of its weights in the last step."""
        return {s: runner.versions.peak for (d, s), runner in self.runners.items() if d == r and runner.versions}

    def beside(self, r: int) -> ModelStates:
        """What device r holds beside the parameters: at most of other versions, and now of their gradients."""
        found = [runner.versions for (d, _), runner in self.runners.items() if d == r and runner.versions]
        weights = sum((versions.peak - 1) * versions.bytes for versions in found)
        return ModelStates(weights, sum(versions.gradient_bytes for versions in found))


_Told: TypeAlias = tuple[dict[int, int], set[int], dict[int, int]]


def _told(schedule: Schedule) -> list[_Told]:
    """By stage, what its runner is told of a part of a table.

    The age of each forward's version, the micro-batches with an R, and in a drain the most that a forward behind each
    update is behind the newest version.
    """
    here = part_in(schedule)
    whole = schedule if here is None else here.whole
    old = ages(whole)
    found: list[_Told] = [({}, set(), {}) for _ in range(schedule.stages)]
    for forward, age in old.items():
        found[forward.stage][0][forward.microbatch] = age
    for s, i in whole.recomputed:
        found[s][1].add(i)
    for row in schedule.programs if here is not None and here.drains else ():
        most = 0
        for action in reversed([action for slot in row for action in actions_of(slot)]):
            if action.op == "F":
                most = max(most, old[action])
            elif action.op == "U":
                found[action.stage][2][action.microbatch] = most
    return found
