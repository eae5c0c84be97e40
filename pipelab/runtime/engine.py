"""One process's part of a pipeline: the devices that it drives, and what it does together with the others.

With ``threads`` one engine drives all devices. With ``processes`` each process has an engine for one device, and all of
them walk through the same code: what has to be said or decided together goes through ``peers``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from pipelab.errors import ConfigurationError, LostProcessError, PipelabError, TimeLimitError
from pipelab.models.shards import is_split
from pipelab.runtime.checkpoint.generators import random_state, set_random_state
from pipelab.runtime.checkpoint.saving import Saving
from pipelab.runtime.device.allocator import keep_freed_memory
from pipelab.runtime.faults.limit import TimeLimit
from pipelab.runtime.faults.stop import Stop
from pipelab.runtime.faults.where import OUTSIDE
from pipelab.runtime.measuring.microbatch_costs import MicrobatchCosts
from pipelab.runtime.peers import Peers, note
from pipelab.runtime.report import StepRecord, StepReport
from pipelab.runtime.setup.assembly import (
    Parts,
    refuse_batch_statistics,
    refuse_redrawn_masks,
    warn_of_batch_statistics,
    warn_of_random_masks,
    with_loss,
)
from pipelab.runtime.setup.by_name import named_parameters, named_state
from pipelab.runtime.setup.fit import FitCheck
from pipelab.runtime.setup.loss_scale import require_scale
from pipelab.runtime.setup.optimizer_state import OptimizerState, merge, on_cpu, renamed, require_names
from pipelab.runtime.setup.optimizers import make_optimizers, require_optimizer
from pipelab.runtime.setup.replicas import Replicas
from pipelab.runtime.setup.settings import Settings
from pipelab.runtime.setup.ties import resolve_ties
from pipelab.runtime.steps.flight import require_one_gradient
from pipelab.runtime.steps.rehearsals import Rehearsals
from pipelab.runtime.steps.reports import Reports
from pipelab.runtime.steps.step import Stepper
from pipelab.runtime.steps.update import Updates
from pipelab.runtime.steps.walk import device_meter
from pipelab.simulation.costs import Costs

if TYPE_CHECKING:  # it loads torch.distributed
    from pipelab.runtime.mesh.data import DataParallel

__all__ = ["Engine"]

T = TypeVar("T")
U = TypeVar("U")


class Engine(Saving):
    """Runs the devices ``peers.own`` of a schedule; ``stages`` are the modules that live on them.

    ``places[r]`` is where device r keeps its tensors.
    """

    backend = property(lambda self: self.peers.backend, doc="What carries messages.")
    rank = property(lambda self: self.peers.own[0], doc="The first device that this process drives.")

    def __init__(
        self,
        settings: Settings,
        parts: Parts,
        places: Sequence[torch.device],
        peers: Peers,
        identity: Callable[[nn.Parameter], object] = lambda parameter: None,
        data: DataParallel | None = None,
    ) -> None:
        self.settings, self.places, self.peers = settings, tuple(places), peers
        self.step_number, self._data = 0, data
        if any(self.places[r].type == "cpu" for r in peers.own):
            keep_freed_memory()
        parts = with_loss(parts, settings)
        self._stages = dict(sorted(parts.stages.items()))
        if "R" in settings.schedule.ops:
            refuse_redrawn_masks(self._stages)
        warn_of_batch_statistics(self._stages, settings.schedule.microbatches)
        if "U" in settings.schedule.ops:
            refuse_batch_statistics(self._stages)
        ties = resolve_ties(self._stages, (*parts.tied, *settings.tied), peers, identity)
        if ties and "U" in settings.schedule.ops:
            (home, name), holders = ties[0].home, [s for s, _ in ties[0].borrowers]
            raise ConfigurationError(
                f"'{name}' of stage {home} is also a parameter of stage {holders[0]}: schedule "
                f"'{settings.schedule.name}' updates the two at different times, so they would not stay one; use "
                "'1f1b', which flushes, or a model that does not tie them"
            )
        self._replicas = replicas = Replicas(settings.schedule, self._stages, self.places, peers, ties)
        meter = partial(device_meter, settings=settings, replicas=replicas)
        self._running, self._stop = threading.Lock(), Stop()
        peers.limit = TimeLimit(settings.time_limit)
        fit = FitCheck(self._stages, settings.loss, TimeLimit(settings.time_limit))
        made = make_optimizers(settings, replicas)
        updates = Updates(replicas, meter, settings.times, *made, idle=settings.optimizer is None)
        self._stepper = Stepper(settings, replicas, updates, fit, self._stop, data)
        self._reports = Reports(settings, self.places)
        self._rehearsals = Rehearsals(settings, replicas, updates, fit, self._stop, parts.whole, data)

    def start_alike(self) -> None:
        """All replicas of a mesh make this call, once each has its engine: they start from the first one's weights."""
        if self._data is not None:
            self._data.belong(self._replicas)

    @property
    def replica(self) -> int:
        """Which replica of the pipeline this is a part of."""
        return 0 if self._data is None else self._data.shape.replica

    @property
    def leads(self) -> bool:
        """Whether this process speaks where one does for all replicas, and all parts of a layer."""
        return super().leads and (self._data is None or self._data.column.rank == 0)

    def of_replicas(self, tell: Callable[[], U]) -> list[U]:
        """What those who hold the same stages have to tell, one entry a replica."""
        data = self._data
        return super().of_replicas(tell) if data is None else self.peers.agree_own(lambda: data.of_replicas(tell))

    def first_says(self, work: Callable[[Peers], T]) -> T:
        """What ``work`` comes to in the processes of the first replica, told to all."""
        return work(self.peers) if self._data is None else self._data.first_says(work)

    def step(self, inputs: Any, targets: Any) -> StepReport:
        """All micro-batches forward and backward, then one update."""
        return self._reports.make(self.record_step(inputs, targets))

    def drain(self) -> StepReport | None:
        """Finish the micro-batches that are on their way; None if there are none."""
        record = self.record_drain()
        return None if record is None else self._reports.make(record)

    def record_drain(self, *_: Any) -> StepRecord | None:
        """The same, with what a report is made of."""
        with self._working():
            return self._stepper.drain(self.step_number - 1)

    @property
    def flown(self) -> tuple[int, int]:
        """Steps since the pipeline was empty, and steps that have failed where weights change on the way."""
        flight = self._stepper.flight
        return (0, 0) if flight is None else (flight.steps, flight.crashes)

    def record_step(self, inputs: Any, targets: Any) -> StepRecord:
        """The same, with what a report is made of."""
        with self._working():
            record = self._stepper.record(inputs, targets, training=True, number=self.step_number)
            self.step_number += 1
            return record

    def evaluate(self, inputs: Any, targets: Any) -> StepReport:
        """Forwards only, in evaluation mode and without gradients."""
        return self._reports.make(self.record_evaluation(inputs, targets))

    def record_evaluation(self, inputs: Any, targets: Any) -> StepRecord:
        """The same, with what a report is made of."""
        with self._working():
            stages = self._replicas.modules.values()
            modes = [(module, module.training) for stage in stages for module in stage.modules()]
            try:
                for stage in stages:
                    stage.eval()
                return self._stepper.record(inputs, targets, training=False, number=self.step_number)
            finally:
                for module, mode in modes:
                    module.training = mode

    def profile(self, inputs: Any, targets: Any, repeats: int) -> Costs:
        """What one micro-batch of weight 1 costs, stage by stage, with one device at work at a time."""
        with self._working():
            return self._rehearsals.profile(inputs, targets, repeats, self.step_number)

    def measure_microbatch(self, inputs: Any, targets: Any, updates: bool) -> MicrobatchCosts:
        """What one micro-batch costs, of a table of one micro-batch. ``updates``: also what an update would."""
        with self._working():
            return self._rehearsals.measure_microbatch(inputs, targets, updates, self.step_number)

    def verify(self, inputs: Any, targets: Any) -> float:
        """max |g - g*| / max |g*| of a step on this batch, against the model in one piece on the whole of it."""
        require_one_gradient(self.settings.schedule)
        self._rehearsals.require_whole()
        with self._working():
            warn_of_random_masks(self._stages)
            return self._rehearsals.verify(inputs, targets, self.step_number)

    def rehearse(self, inputs: Any, targets: Any) -> dict[str, Tensor] | None:
        """All gradients of a step on this batch, by name, where device 0 is; None elsewhere. Nothing changes."""
        require_one_gradient(self.settings.schedule)
        with self._working():
            return self._rehearsals.gradients(inputs, targets, self.step_number)

    def keep_apart(self) -> None:
        """Whoever else reads the parameters' memory must not see a version that is still in use there."""
        self._stepper.apart = True

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(name in the unsplit model, parameter), stage by stage: those that live here."""
        for s, stage in self._stages.items():
            yield from self._replicas.owned(s, stage)

    def named_state(self) -> Iterator[tuple[str, Tensor]]:
        """(name in the unsplit model, tensor) of parameters and persistent buffers that live here."""
        unseen, borrowed = self.aliases(), self.borrowed
        for s, stage in self._stages.items():
            home = {id(p) for _, p in self._replicas.owned(s, stage)}
            for name, tensor in named_state(s, stage):
                if name not in unseen and (id(tensor) not in borrowed or id(tensor) in home):
                    yield name, tensor

    def aliases(self) -> dict[str, str]:
        """Other names of tied parameters, as far as they are held here, and the one that each is known under."""
        found = {}
        for s, stage in self._stages.items():
            names = {id(p): name for name, p in named_parameters(s, stage)}
            lent = {its: tie.home[1] for tie in self._replicas.ties for holder, its in tie.borrowers if holder == s}
            for name, tensor in named_state(s, stage):
                first = names.get(id(tensor), name)
                known = lent.get(first, first)
                if known != name:
                    found[name] = known
        return found

    @property
    def borrowed(self) -> set[int]:
        """Ids of the parameters here that have their home in another stage."""
        named = ((s, name, p) for s, stage in self._stages.items() for name, p in named_parameters(s, stage))
        return {id(p) for s, name, p in named if (s, name) in self._replicas.borrowed}

    def optimizer_state(self) -> OptimizerState:
        """What the optimizers here remember, by name."""
        require_optimizer(self.settings)
        state = self._stepper.updates.state() | {"step_number": self.step_number}
        if self.settings.grad_scaler is not None:
            state["grad_scaler"] = self.settings.grad_scaler.state_dict()
        return state

    def load_optimizer_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the whole model. Raises ConfigurationError everywhere if it does not fit anywhere."""
        require_optimizer(self.settings)
        self.require_empty("loading")
        with self._working():
            self._take_optimizer_state(state)

    _told_optimizer_state = optimizer_state

    def _take_optimizer_state(self, state: Mapping[str, Any]) -> None:
        updates, scaler = self._stepper.updates, self.settings.grad_scaler
        names = {name for part in self.peers.exchange(sorted(updates.names())) for name in part}
        aliases = {a: b for part in self.peers.exchange(self.aliases()) for a, b in part.items()}

        def plan() -> Callable[[], None]:
            require_names(state, names, aliases)
            require_scale(scaler, state)
            return updates.plan(renamed(state, aliases))

        apply = self.peers.agree_own(plan)
        self.peers.agree(apply)
        if scaler is not None and state.get("grad_scaler"):
            scaler.load_state_dict(state["grad_scaler"])
        self.step_number = state.get("step_number", self.step_number)

    @property
    def processes(self) -> list[str]:
        """Whose random generators this is in charge of: what they are called in a checkpoint."""
        return [str(self.rank)] if self.replica == 0 else []

    def random_states(self) -> dict[str, Any]:
        """The states of this process's random generators."""
        state = random_state([self.places[r] for r in self.peers.own])
        return dict.fromkeys(self.processes, state)

    def take_random_states(self, states: Mapping[str, Any]) -> None:
        """Go on from there."""
        for state in states.values():
            set_random_state(state, [self.places[r] for r in self.peers.own])

    def _stay(self, random: Mapping[str, Any]) -> None:
        super()._stay(random)
        self._replicas.settle()

    def require_even(self, what: str) -> None:
        """Raise PipelabError unless all stages have made the same updates, and no thread is still at work on one."""
        super().require_even(what)
        self._replicas.require_returned()

    def gather(self, tensors: Mapping[str, Any]) -> dict[str, Any] | None:
        """Everyone's tensors by name in the process that drives device 0; None in the others."""
        with self._working():
            parts = self.peers.gather(on_cpu(tensors))
        if parts is None:
            return None
        if "param_groups" in tensors:
            return merge(parts)
        return {name: tensor for part in parts for name, tensor in part.items()}

    def stages(self) -> list[tuple[int, nn.Module]]:
        """(stage, module) of those that live here."""
        return list(self._stages.items())

    def all_names(self) -> set[str]:
        """The names of the whole model's state, wherever it is."""
        own = sorted([*self.aliases(), *(name for name, _ in self.named_state())])
        return {name for names in self.peers.exchange(own) for name in names}

    def together(self, work: Callable[[], None]) -> None:
        """Do ``work``; if it raises in any process of the pipeline, it raises in all."""
        self.peers.agree(work)

    def succeeded(self, plan: Callable[[], Any], make: Callable[[Any], Saving]) -> Saving:
        """The engine that ``make`` makes of what is planned. Raises ConfigurationError where layers are split."""
        if any(is_split(p) for _, p in self.named_parameters()):
            raise ConfigurationError(
                "rescheduling is not possible where layers are split over processes (tp, shard): save a checkpoint, "
                "and load it in a new Pipeline of a new model"
            )
        return super().succeeded(plan, make)

    def interrupt(self) -> None:
        """Stop the step that is running or about to; callable from another thread."""
        self._stop.interrupt()

    def resume(self) -> None:
        """Forget an interrupt that came too late to stop anything."""
        self._stop.forget()

    def abandon(self, error: BaseException) -> None:
        """``error`` ends this process's part, unless the others know of it: then nothing is on its way any more."""
        if self.peers.abandon(error):
            self._crash()

    def close(self, *, finish: bool = True) -> None:
        """Let go of connections; before that ``finish`` what is on its way, or forget it."""
        try:
            if finish and self.under_way:
                self.drain()
        finally:
            self._crash()
            self.peers.close()
            if self._data is not None:
                self._data.close()

    def _crash(self) -> None:
        if self._stepper.flight is not None and self.under_way:
            self._stepper.flight.crash()

    @contextmanager
    def _working(self) -> Iterator[None]:
        """One thing at a time; and what goes wrong without the others' knowledge must not leave them waiting."""
        if not self._running.acquire(blocking=False):
            raise PipelabError("this Pipeline is running a step in another thread; wait for it, or make a second one")
        try:
            with self._noted():
                try:
                    yield
                    note(self.peers, OUTSIDE)
                except BaseException as error:
                    if not isinstance(error, TimeLimitError | LostProcessError):  # then it matters where this was
                        note(self.peers, OUTSIDE)
                    self.abandon(error)
                    raise
        finally:
            self._running.release()
