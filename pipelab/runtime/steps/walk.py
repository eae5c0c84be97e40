"""One kind of run of this process's devices, a training step or an evaluation: compiled once, walked each step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from pipelab.errors import TimeLimitError
from pipelab.quantities import ModelStates
from pipelab.runtime.device.caller_settings import CallerSettings
from pipelab.runtime.device.channels import Aborted, StepWire
from pipelab.runtime.device.clocks import NoMeter, SlotMeter, make_meter
from pipelab.runtime.device.log import DeviceLog
from pipelab.runtime.device.memory import AllocatorPeak, MemoryMeter
from pipelab.runtime.device.payload import Payload
from pipelab.runtime.device.program import FAILED, compile_table
from pipelab.runtime.device.stage import StageRunner, StageStep, Task
from pipelab.runtime.device.threads import GRACE, LOOKS_EVERY, Overdue, run_threads, take_turns
from pipelab.runtime.device.worker import Worker
from pipelab.runtime.faults.deadlock import deadlock, in_action, is_stuck
from pipelab.runtime.faults.finite import watch
from pipelab.runtime.faults.where import LOOKING, OPENING, OUTSIDE, UPDATING, described
from pipelab.runtime.setup.assembly import StageWithLoss
from pipelab.runtime.setup.loss_scale import scale_of
from pipelab.runtime.setup.replicas import Replicas
from pipelab.runtime.setup.settings import Settings
from pipelab.runtime.steps.flight import Flight
from pipelab.runtime.steps.update import Updates
from pipelab.schedules.action import Action, actions_of
from pipelab.schedules.schedule import Schedule

__all__ = ["Walk", "Walked", "device_meter"]

_SMALL = 400e-6
"""Seconds of a slot up to which devices of one process take turns."""


@dataclass
class Walked:
    """What one process has to tell of a walk: its devices' logs, its part of the loss, CPU time (seconds)."""

    logs: dict[int, DeviceLog]
    loss: float | None
    cpu: float


class Walk:
    """Runs the devices of this process through ``schedule``; ``memory`` are their meters.

    ``early(r)`` is what device r does when its own part is over, while others go on; ``around`` are what it does
    before and after the last backward of stage s, called with (r, s). ``left()``: how many seconds it may still take,
    if something has failed elsewhere of which no message tells.
    """

    def __init__(
        self,
        schedule: Schedule,
        settings: Settings,
        replicas: Replicas,
        updates: Updates,
        memory: dict[int, MemoryMeter],
        *,
        training: bool,
        flight: Flight | None = None,
        drain: bool = False,
        early: Callable[[int], None] | None = None,
        around: Sequence[Callable[[tuple[int, int]], None]] = (),
        left: Callable[[], float] = lambda: math.inf,
    ) -> None:
        if flight is None:
            settings.require_sound(schedule)
        self._flight, self._drains, self._early = flight, drain or schedule.updating is None, early
        self._left = left
        self.settings, self.training, self.memory = settings, training, memory
        self._replicas, self._updates = replicas, updates
        self._own, self._places, self._last = replicas.peers.own, replicas.places, schedule.stages - 1
        self.schedule, self.table = schedule, compile_table(schedule)
        self._width = 3 + max(map(DeviceLog.length, self.table.programs))
        self._by_device = settings.clock == "device" and settings.measure_costs
        modelled = settings.clock == "wall" and settings.links.take_time
        share = updates.on_cpu or (self._by_device and len({self._places[r] for r in self._own}) == 1)
        self._may_take_turns = len(self._own) > 1 and share and not modelled
        self.workers: list[Worker] = []
        self.amid = False
        """Whether micro-batches of earlier steps are on their way, which devices hold meanwhile."""
        self._small = False
        self._seen = self._judged = self._reached = list[int]()
        """Whereabouts: when looked at last, when a deadlock was looked for, and the last that were not FAILED."""
        self._outputs: dict[int, tuple[tuple[Tensor, ...], bool]] = {}
        splits = {action.stage for _, _, action in schedule.actions() if action.op == "I"}
        for r in self._own:
            runners = {}
            for s in schedule.stages_on(r):
                make = partial(self._runner, r, s, splits=s in splits)
                runners[s] = make() if flight is None else flight.runner((r, s), make)
            told = (self.table.programs[r], runners, memory[r], self._places[r])
            ends: dict[Action, Any] = {}
            for action in self._last_backwards(r) if around else ():
                ends[action] = tuple(partial(work, (r, action.stage)) for work in around)
            self.workers.append(Worker(r, *told, replicas.peers.whereabouts, ends))

    @property
    def ends(self) -> list[tuple[int, int]]:
        """(device, stage), in the order of their last backwards on each device of this process."""
        return [(r, action.stage) for r in self._own for action in self._last_backwards(r)]

    def _last_backwards(self, r: int) -> list[Action]:
        """The last action of each stage on device r that adds to a gradient."""
        acts = [action for slot in self.schedule.programs[r] for action in actions_of(slot) if action.op in "BIW"]
        last = {action.stage: action for action in acts}
        return [action for action in acts if last[action.stage] == action]

    def _runner(self, r: int, s: int, *, splits: bool) -> StageRunner:
        module, settings, schedule = self._replicas.modules[r, s], self.settings, self.schedule
        runner = StageRunner(
            s,
            module,
            self._places[r],
            self.memory[r],
            loss=self._loss_of(module) if s == self._last else None,
            recomputed={i for stage, i in schedule.recomputed if stage == s},
            training=self.training,
            in_place=self._replicas.in_place,
            splits=splits,
            keep_outputs=not self.training and s == self._last,
            shares_generator=len(self._own) > 1 and not self._by_device and self._places[r].type == "cpu",
        )
        if settings.check_finite:
            watch(runner, gradients=settings.grad_scaler is None or not settings.grad_scaler.is_enabled())
        return runner

    @property
    def turns(self) -> bool:
        """Whether the devices of this process do best to take turns in one thread.

        Under the device clock one slot runs at a time anyway. Threads on a CPU share Python's interpreter: where slots
        are small it is theirs most of the time, and to hand it over in the middle of one takes longer than the slot.
        """
        held = any(self.settings.times(r) > 1 for r in self._own)
        return self._may_take_turns and (self._by_device or self._small) and not held

    def _look(self) -> float:
        """How many seconds it may still take. Raises DeadlockError if the devices can never go on."""
        now = list(self._replicas.peers.look())
        if now == self._seen and now != self._judged:  # who moves is not stuck
            self._judged = now
            found = deadlock(self.table, now, self.settings.outstanding, batched=self.settings.batched)
            if found is not None:
                raise found
        self._seen, self._reached = now, _reached(now, self._reached or now)
        return self._left()

    def _told_to_stop(self, before: Sequence[int]) -> Sequence[int]:
        """The whereabouts, once the devices of other processes have had a moment to stop after ``before``."""
        late = time.monotonic() + (GRACE if len(self._own) < len(before) else 0.0)
        while True:
            now = list(self._replicas.peers.look())
            same = [r for r, place in enumerate(now) if r not in self._own and place == before[r]]
            reached = _reached(now, before)
            if time.monotonic() >= late or not any(is_stuck(self.table, r, reached) for r in same):
                return now
            time.sleep(LOOKS_EVERY / 5)

    def _time_limit_error(self, limit: float, before: Sequence[int], held: set[int]) -> TimeLimitError:
        """Says what the devices are doing that neither wait nor end; of this process's own, those that are ``held``."""
        now, lines, named = self._told_to_stop(before), [], []
        reached = _reached(now, before)
        at_work = {device for device in held if in_action(now[device]) or now[device] == UPDATING}
        held = at_work or held  # where devices take turns, others wait for the thread
        for device, place in enumerate(now):
            here = device in self._own
            late = place in (OPENING, LOOKING, OUTSIDE, UPDATING)  # it has not begun
            if (device in held if here else late or is_stuck(self.table, device, reached)) and place == before[device]:
                named.append(device)
                how = ", and a thread cannot be ended from outside" if here else ", in another process"
                lines.append(f"  device {device} is still {described(self.table, device, place)}{how}")
        head = f"the step has not come to its end within {limit:g} s, and was stopped"
        hint = "its devices ended when they were told to: allow more with time_limit=..., in seconds"
        if named and len(self._own) < len(now):
            hint = "that process has to be ended; a new Pipeline can go on"
        elif named:
            hint = "this Pipeline cannot go on before that returns; a new one beside it can"
        error = TimeLimitError("\n".join([head, *lines, hint]))
        error.stuck = tuple(named)
        return error

    def run(
        self,
        wire: StepWire,
        number: int,
        sizes: Sequence[int],
        inputs: Sequence[Payload] | None,
        tasks: Sequence[Task] | None,
        *,
        turns: bool,
        first: int = 0,
    ) -> Walked:
        """Step ``number``, of a batch that begins with sequence ``first``.

        If one device fails, the others stop, and its error is raised.
        """
        own = self._own
        self._replicas.require_returned()
        self._replicas.busy = []
        limit, seen = self._replicas.peers.limit.seconds, list[int]()
        caller = CallerSettings([self._places[r] for r in own])
        allocators = {r: AllocatorPeak(self._places[r]) for r in own if self._has_own_allocator(r)}
        try:
            carried = 0 if self._flight is None else self._flight.microbatches
            firsts = [0] * carried + list(accumulate(sizes[carried:], initial=first))
            if self._flight is not None:
                self._flight.take_off(self.workers, self.schedule)
            scale = scale_of(self.settings.grad_scaler) if self.training else 1.0
            told = StageStep((self.settings.seed, number), firsts, caller, inputs, tasks, scale)
            walks = [self._begun(worker, wire, told) for worker in self.workers]
            each = [walks] if turns else [[walk] for walk in walks]
            runs = [
                partial(caller.run, partial(take_turns, walks), worker.place)
                for walks, worker in zip(each, self.workers, strict=False)
            ]

            def abort() -> None:
                here = self._replicas.peers.whereabouts
                seen[:] = here if len(own) == len(here) else self._reached or here
                wire.abort()

            outcomes = run_threads(runs, abort, one_core_each=self._updates.on_cpu, limit=limit, look=self._look)
            walked = self._walked(allocators, sum(outcome.cpu for outcome in outcomes), turns=turns)
            if self._flight is not None:
                self._flight.land(self.workers, list(sizes), drained=self._drains)
            return walked
        except Overdue as found:
            self._replicas.busy = list(found.args[0].values())
            if found.error is not None:
                raise found.error from None
            if self._left() < math.inf:
                raise Aborted("another process that holds the same stage has failed") from None
            held = set(own) if turns and found.args[0] else {own[k] for k in found.args[0]}
            raise self._time_limit_error(limit, seen, held) from None
        except BaseException:
            wire.abort()
            raise
        finally:
            if self._flight is None:
                for worker in self.workers:
                    for runner in worker.runners.values():
                        runner.drop()

    def _walked(self, allocators: dict[int, AllocatorPeak], cpu: float, *, turns: bool) -> Walked:
        """What there is to tell, once the devices' work is done."""
        for worker in self.workers:  # waits for the device's work to be done
            worker.log.model_states = self._updates.model_states(worker.device)
            if worker.device in allocators:
                worker.log.allocated = allocators[worker.device].read()
        self._outputs = {i: out for runner in self._last_runners() for i, out in runner.outputs.items()}
        if self._may_take_turns and not self._by_device:
            self._judge_slots(turns)
        return Walked({w.device: w.log for w in self.workers}, self._loss(), cpu)

    def _judge_slots(self, turns: bool) -> None:
        """Whether slots are small: by CPU time, and not where one is found to wait for something else in its turn."""
        readings = [worker.log.readings for worker in self.workers]
        costs = [cost for r in readings for cost in r.cost]
        self._small = bool(costs) and mean(costs) < _SMALL
        if turns and costs:
            spent = [end - start for r in readings for start, end in zip(r.host_start, r.host_end, strict=True)]
            if mean(spent) > 2 * _SMALL:
                self._may_take_turns = False

    def to_numbers(self, walked: Walked) -> list[float]:
        """For the other processes: what the one device of this process came to, in a row as long as everyone's."""
        (log,) = walked.logs.values()
        loss = [0.0, 0.0] if walked.loss is None else [1.0, walked.loss]  # a loss may be nan
        row = [*loss, walked.cpu, *log.to_numbers()]
        return row + [0.0] * (self._width - len(row))

    def outputs(self) -> dict[int, tuple[tuple[Tensor, ...], bool]]:
        """What the last stage gave for each micro-batch that ran here; to be taken once."""
        found, self._outputs = self._outputs, {}
        return found

    def _begun(self, worker: Worker, wire: StepWire, told: StageStep) -> Iterator[None]:
        """Ready a device for the step; returns its walk."""
        r, allowed = worker.device, self.settings.limits[worker.device]
        held = ModelStates()
        if math.isfinite(allowed):
            held = self._updates.model_states(r, planned=self.training)
        self.memory[r].reset(self._replicas.tensors_on(r), allowed - held.total, keep=self.amid)
        for runner in worker.runners.values():
            runner.begin(told)
        meter = device_meter(r, self.settings, self._replicas)
        walk = worker.walk(wire, meter, held, allowed, self.settings.times(r))
        return walk if self._early is None else _and_then(walk, wire, partial(self._early, r))

    def _has_own_allocator(self, r: int) -> bool:
        here = [self._places[other] for other in self._own]
        return self._places[r].type == "cuda" and here.count(self._places[r]) == 1

    def _loss_of(self, module: Any) -> Any:
        """The loss; one that has parameters lives in the last stage's module."""
        return module.loss if isinstance(module, StageWithLoss) else self.settings.loss

    def _last_runners(self) -> list[StageRunner]:
        return [worker.runners[self._last] for worker in self.workers if self._last in worker.runners]

    def _loss(self) -> float | None:
        """The micro-batches' losses, each with its weight in the batch's."""
        found = [pair for runner in self._last_runners() for pair in runner.losses.values()]
        if not found:
            return None
        losses = torch.stack([loss.reshape(()).to(torch.float64) for loss, _ in found]).cpu()
        return float(losses @ torch.tensor([weight for _, weight in found], dtype=torch.float64, device="cpu"))


def _and_then(walk: Iterator[None], wire: StepWire, more: Callable[[], None]) -> Iterator[None]:
    """A device's walk, and ``more`` unless another has failed."""
    yield from walk
    wire.check()
    more()


def _reached(now: Sequence[int], earlier: Sequence[int]) -> list[int]:
    """How far devices had come: of one that has failed, where it was ``earlier``."""
    return [then if place == FAILED else place for place, then in zip(now, earlier, strict=True)]


def device_meter(r: int, settings: Settings, replicas: Replicas) -> SlotMeter:
    """What times device r's slots; where devices share a processor, one slot at a time under the device clock."""
    if not settings.measure_costs:
        return NoMeter()
    places, peers, by_device = replicas.places, replicas.peers, settings.clock == "device"
    shared = peers.turn(places[r], places) if by_device else None
    return make_meter(places[r], shared, alone=by_device and len(peers.own) == 1)
