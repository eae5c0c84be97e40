"""One step, in five sentences: look, cut, walk, update, report.

Every process of the pipeline does the same, for its own devices. What may fail on one of them alone happens inside
``peers.agree``, so that it fails on all.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipelab.errors import ConfigurationError, ScheduleError
from pipelab.quantities import format_bytes
from pipelab.runtime.device.memory import MemoryMeter
from pipelab.runtime.device.payload import Payload
from pipelab.runtime.device.stage import Task
from pipelab.runtime.device.versions import Versions
from pipelab.runtime.faults.stop import Stop
from pipelab.runtime.faults.where import LOOKING, UPDATING
from pipelab.runtime.peers import Share, note
from pipelab.runtime.report import StepRecord
from pipelab.runtime.setup.fit import FitCheck
from pipelab.runtime.setup.microbatches import (
    batch_size,
    count_tasks,
    default_terms,
    make_inputs,
    make_tasks,
    reduction_of,
    weigh,
)
from pipelab.runtime.setup.replicas import Replicas
from pipelab.runtime.setup.settings import Settings
from pipelab.runtime.steps.call import UNDER_WAY, Call, common, same_call
from pipelab.runtime.steps.flight import Flight, part_of
from pipelab.runtime.steps.update import Updates
from pipelab.runtime.steps.validation import Validation
from pipelab.runtime.steps.walk import Walk, Walked
from pipelab.schedules.updates import groups

if TYPE_CHECKING:  # it loads torch.distributed
    from pipelab.runtime.mesh.data import DataParallel

__all__ = ["Stepper"]

ANCHOR = 1e-3
"""How far times that a GPU has stamped may be off the host's clock (seconds)."""


@dataclass
class _Cut:
    """A batch, cut: the table with its micro-batches' sizes, and what this process holds of them."""

    training: bool
    number: int
    sizes: Sequence[int] = ()
    payloads: list[Payload] | None = None
    tasks: list[Task] | None = None
    signature: tuple[int, ...] = ()
    drain: bool = False
    share: Share | None = None
    """Of a batch that replicas share."""


class Stepper:
    """Runs steps of ``settings.schedule`` on the devices of this process; ``updates`` follow a training step."""

    def __init__(
        self,
        settings: Settings,
        replicas: Replicas,
        updates: Updates,
        fit: FitCheck,
        stop: Stop,
        data: DataParallel | None = None,
    ) -> None:
        self.settings, self.schedule = settings, settings.schedule
        self.places, self.peers, self._stages = replicas.places, replicas.peers, replicas.stages
        self._replicas, self.updates, self._fit, self._stop, self._data = replicas, updates, fit, stop, data
        loss = settings.loss
        self._terms = default_terms(loss) if settings.loss_terms is None else settings.loss_terms
        self._reduction = "mean" if loss is None else reduction_of(loss)
        self.memory = {r: MemoryMeter(enabled=settings.measure_memory) for r in self.peers.own}
        self._walks: dict[Any, Walk] = {}
        """Compiled when first needed: of training steps, and of evaluations."""
        self.apart = False
        self.flight = Flight(self.schedule, self._versions_of) if "U" in self.schedule.ops else None
        self.updates.flight = self.flight
        self.validation = Validation(settings, replicas, updates)

    def record(self, inputs: Any, targets: Any, *, training: bool, number: int) -> StepRecord:
        """One step, or (without ``training``) an evaluation. Its ``number`` keys the dropout."""
        note(self.peers, LOOKING)
        cut = self._look_and_cut(inputs, targets, training, number)
        begun, limit = time.monotonic(), self.peers.limit
        limit.kind = (id(self.schedule), training, sum(cut.sizes))
        self._replicas.prepare(training)
        record = self._run(cut)
        limit.learn(time.monotonic() - begun)
        return record

    def drain(self, number: int) -> StepRecord | None:
        """Finish what is on its way since step ``number``; None if nothing is."""
        if not self._steps:
            return None
        note(self.peers, LOOKING)
        common(UNDER_WAY, self.peers.agree_numbers(lambda: [float(self._steps)])[:, 0].tolist())
        return self._run(_Cut(True, number, drain=True))

    def _run(self, cut: _Cut) -> StepRecord:
        """Walk and update. If that fails on any process, nothing is on its way on all of them."""
        try:
            record = self._walk(cut)
            note(self.peers, UPDATING)
            if cut.training:
                self._update(record)
            self._set_clocks(record)
        except BaseException as error:
            if self._data is not None:
                self._data.give_up(error)
            self.validation.undo()
            if self.flight is not None and cut.training:
                self.flight.crash()
            raise
        return record

    @property
    def _steps(self) -> int:
        return 0 if self.flight is None else self.flight.steps

    # ---- look, and cut -------------------------------------------------------------------------------------------

    def _look_and_cut(self, inputs: Any, targets: Any, training: bool, number: int) -> _Cut:
        cut = _Cut(training, number)
        told = self.peers.agree_numbers(lambda: self._look(cut, inputs, targets).to_numbers())
        calls = [Call.from_numbers(row) for row in told]
        if self._data is None:
            batch = same_call(calls)
        else:
            terms = sum(task.factor for task in cut.tasks or ())
            what = f"{'step' if training else 'evaluate'} {number}" + (
                ", without targets" if targets is None and self.schedule.stages - 1 in self._stages else ""
            )
            share = partial(self._data.share, {"what to run": what}, lambda: (same_call(calls), terms))
            cut.share = self.peers.agree_own(share)  # stages may differ in what replicas disagree about
            batch = same_call(calls)
        cut.sizes = cut.sizes or self.schedule.microbatch_sizes(batch)
        cut.signature = tuple(call.signature for call in calls)
        return cut

    def _look(self, cut: _Cut, inputs: Any, targets: Any) -> Call:
        """Check what this process was given, before anything starts anywhere, and cut the batch."""
        loss, last = self.settings.loss, self.schedule.stages - 1
        if cut.training:
            if self.schedule.forward_only:
                raise ScheduleError(f"schedule '{self.schedule.name}' has no backward; use evaluate(inputs, targets)")
            if loss is None or (targets is None and last in self._stages):
                raise ConfigurationError("a training step needs loss=... in the Pipeline and targets")
        elif targets is not None and loss is None:
            raise ConfigurationError("evaluate with targets needs loss=... in the Pipeline")
        self._replicas.take_up(optimized=self.settings.optimizer is not None)
        self._require_room(cut.training)
        batch = self.length(inputs, targets)
        if batch is not None:
            cut.sizes = self.schedule.microbatch_sizes(batch)
            if 0 in self._stages:
                cut.payloads = make_inputs(inputs, cut.sizes)
            if last in self._stages and targets is not None:
                make = make_tasks if self._data is None else count_tasks
                cut.tasks = make(targets, cut.sizes, self._terms, self._reduction)
                if cut.training and self.flight is not None:
                    self._weigh_by_update(cut.tasks)
            if cut.payloads is not None and len(self._stages) > last:
                self._fit.check(cut.payloads[0], None if cut.tasks is None else cut.tasks[0].targets)
        learns = any(p.requires_grad for stage in self._stages.values() for p in stage.parameters())
        return Call(cut.training, batch, cut.number, learns, self._signature(cut), self._steps)

    def _weigh_by_update(self, tasks: Sequence[Task]) -> None:
        """Each update takes the mean of its own micro-batches' losses."""
        if self._reduction == "mean":
            for group in groups(self.schedule):
                whole = sum(tasks[i].factor for i in group)
                for i in group:
                    tasks[i].seed = tasks[i].factor / whole if whole else 0.0

    def length(self, inputs: Any, targets: Any) -> int | None:
        """Sequences in the batch, as far as this process was told."""
        if 0 not in self._stages and inputs is None and targets is None:
            return None
        return batch_size(inputs, targets, needs_inputs=0 in self._stages)

    def _signature(self, cut: _Cut) -> int:
        """What the shapes of messages may depend on besides the sizes of micro-batches, as far as this process sees."""
        if len(self.peers.own) == self.schedule.devices:
            return 0
        first = cut.payloads[0].tensors if cut.payloads else ()
        frozen = [p.requires_grad for stage in self._stages.values() for p in stage.parameters()]
        modes = [module.training for stage in self._stages.values() for module in stage.modules()]
        cast = [(kind, torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
        told = (frozen, modes, cast, torch.get_default_dtype(), [(tuple(t.shape[1:]), t.dtype) for t in first])
        return int.from_bytes(hashlib.sha256(repr(told).encode()).digest()[:6])  # as much as a float64 holds

    def _require_room(self, training: bool) -> None:
        """Raises ConfigurationError if a device's limit leaves no room for activations."""
        for r in self.peers.own:
            allowed = self.settings.limits[r]
            if not math.isfinite(allowed):
                continue
            model_states = self.updates.model_states(r, planned=training)
            if model_states.total >= allowed:
                raise ConfigurationError(
                    f"memory_limit allows {format_bytes(allowed)} on device {r}, which holds "
                    f"{format_bytes(model_states.total)} before the first activation ({model_states}); allow more, or "
                    "use more devices"
                )
            copied = self.updates.copied([key for key in self.validation.early if key[0] == r])
            if training and copied and model_states.total + copied > allowed:
                raise ConfigurationError(
                    f"memory_limit allows {format_bytes(allowed)} on device {r}, which holds "
                    f"{format_bytes(model_states.total)} ({model_states}), and post_validation keeps a copy of "
                    f"{format_bytes(copied)} of it until the update is validated; allow more, or leave "
                    "post_validation out"
                )

    # ---- walk ----------------------------------------------------------------------------------------------------

    def _walk(self, cut: _Cut) -> StepRecord:
        """Run this process's devices through their programs; everyone's, or nobody's, go through."""
        steps = self._steps if cut.training else 0
        walk = self._walk_of(cut.training, steps, drain=cut.drain)
        walk.amid = self._steps > 0
        self.peers.table, turns = walk.table, walk.turns
        sizes, payloads, tasks = list(cut.sizes), cut.payloads, cut.tasks
        if steps:  # those that came in earlier are counted first
            earlier = self.flight.sizes  # type: ignore[union-attr]
            blank: list[Any] = [None] * len(earlier)
            sizes = earlier + sizes
            payloads = None if payloads is None else blank + payloads
            tasks = None if tasks is None else blank + tasks
        wire = self.peers.open_wire(
            walk.table.messages,
            self.places,
            sizes,
            signature=(cut.training, *cut.signature),
            outstanding=self.settings.outstanding,
            batched=self.settings.batched,
            turns=turns,
            links=self.settings.felt_links,
        )
        self._stop.watch(wire)

        def run() -> Walked:
            share, weighed = cut.share or Share(), tasks
            if cut.share is not None and tasks is not None and self._reduction == "mean":
                try:
                    weighed = weigh(tasks, share.terms)
                except ConfigurationError:
                    wire.abort()  # the other devices wait for this one
                    raise
            try:
                return walk.run(wire, cut.number, sizes, payloads, weighed, turns=turns, first=share.first)
            except BaseException as error:
                if self._data is not None and not getattr(error, "stuck", None):  # others have the same time limit
                    self._data.fail()
                raise

        try:
            if self._data is not None:
                self._data.prepare(walk.ends if cut.training else None)
            record = self._recorded(walk, run)
        except BaseException:
            wire.abort()
            raise
        finally:
            self._stop.forget()
            wire.close()
            if self._data is not None:
                self._data.rest()
        record.number, record.batch = cut.number, sum(cut.sizes)
        if self._data is not None:
            record.loss = self._data.total(record.loss)
        if self.flight is not None and cut.training:
            record.part = (steps, cut.drain, tuple(sizes))
        if not cut.training:
            record.outputs = self._outputs(walk)
        return record

    def _walk_of(self, training: bool, steps: int = 0, *, drain: bool = False) -> Walk:
        flight = self.flight if training else None
        schedule = self.schedule if training or self.schedule.forward_only else self.schedule.forward_part()
        if flight is not None:
            schedule = part_of(schedule, steps, drain=drain)
        key = (training, id(schedule), drain) if flight is not None else training
        if key not in self._walks:
            made = (schedule, self.settings, self._replicas, self.updates, self.memory)
            early = self.validation.step if training and self.validation.early else None
            more: dict[str, Any] = {}
            if self._data is not None:
                around = (self._data.before_last, self._data.send) if training else ()
                more = {"around": around, "left": self._data.left}
            self._walks[key] = Walk(*made, training=training, flight=flight, drain=drain, early=early, **more)
        return self._walks[key]

    def _versions_of(self, r: int, s: int, behind: int) -> Versions:
        """The weights of stage s on device r, and what steps them."""
        made = self.updates
        optimizer, scheduler = made.optimizers.get((r, s)), made.schedulers.get((r, s))
        module, settings = self._replicas.modules[r, s], self.settings
        apart = self.apart and self.places[r].type == "cpu"
        return Versions(module, optimizer, scheduler, self.memory[r], behind=behind, stash=settings.stash, apart=apart)

    def _recorded(self, walk: Walk, run: Callable[[], Walked]) -> StepRecord:
        """What everyone's walk came to."""
        if len(self.peers.own) == self.schedule.devices:
            walked = self.peers.agree_own(run)
            return StepRecord(walk.training, walked.loss, walked.cpu, [walked.logs[r] for r in self.peers.own])
        told = self.peers.agree_numbers(lambda: walk.to_numbers(run()))
        losses = told[told[:, 0] > 0, 1]
        loss = float(losses.sum()) if len(losses) else None
        return StepRecord(walk.training, loss, float(told[:, 2].sum()), told[:, 3:])

    def _outputs(self, walk: Walk) -> Any:
        """The last stage's outputs; each of its homes gets those of all."""
        homes, found = self.schedule.placement[-1], walk.outputs()
        if len(homes) > 1:
            found = {i: out for part in self.peers.exchange(found) for i, out in part.items()}
        here = any(r in self.peers.own for r in homes)
        return _join([found[i] for i in range(self.schedule.microbatches)]) if here else None

    # ---- update, and clocks --------------------------------------------------------------------------------------

    def _update(self, record: StepRecord) -> None:
        """Every stage's update, at the flush; where the table has the updates, what devices hold after them."""
        if self.flight is not None:
            told = self.peers.agree_numbers(self.updates.held)
            record.updates = told.reshape(self.schedule.devices, -1).tolist()
            return
        self._replicas.reduce()
        if self._data is not None:
            moved = self.peers.agree_own(self._data.finish)
            record.reductions = [one for part in self.peers.exchange(moved) for one in part]
        found = self.validation.verdict()
        record.norm, record.skipped = found.norm, found.skipped
        record.stepped_early, record.rolled_back = found.early, found.rolled_back
        if self.updates.idle:
            return
        told = self.peers.agree_numbers(lambda: self.updates.step(record.loss, found, self.validation.seconds))
        record.updates = told.reshape(self.schedule.devices, -1).tolist()
        record.cpu += sum(cpu for *_, cpu, _ in record.updates)

    def _set_clocks(self, record: StepRecord) -> None:
        """What is to be added to each device's times to have all on one clock."""
        offsets, slack = self.peers.clock_offsets()
        if len(self.peers.own) == self.schedule.devices:
            offsets = offsets * self.schedule.devices
        record.offsets, record.on_device = offsets, self.peers.asynchronous
        record.slack = slack + (ANCHOR if record.on_device else 0.0)


def _join(found: Sequence[tuple[tuple[Tensor, ...], bool]]) -> Any:
    """The outputs of all micro-batches, back in one batch (a list of them where shapes differ)."""
    parts, single = [tensors for tensors, _ in found], found[0][1]
    home = parts[0][0].device
    columns = [[tensor.to(home) for tensor in column] for column in zip(*parts, strict=True)]
    if any(t.dim() == 0 or t.shape[1:] != column[0].shape[1:] for column in columns for t in column):
        rows = list(zip(*columns, strict=True))  # shapes that do not join: one entry per micro-batch
        return [row[0] for row in rows] if single else rows
    joined = tuple(map(torch.cat, columns))
    return joined[0] if single else joined
