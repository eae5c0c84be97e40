"""One step, in five sentences: look, cut, walk, update, report.

Every process of the pipeline does the same, for its own devices. What may fail on one of them alone happens inside
``peers.agree``, so that it fails on all.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.errors import ConfigurationError, ScheduleError
from pipelab.memory import ModelStates
from pipelab.quantities import format_bytes
from pipelab.runtime.device.caller_settings import CallerSettings
from pipelab.runtime.device.channels import StepWire
from pipelab.runtime.device.clocks import SlotMeter, make_meter
from pipelab.runtime.device.memory import AllocatorPeak, MemoryMeter
from pipelab.runtime.device.payload import Payload
from pipelab.runtime.device.stage import StageRunner, Task
from pipelab.runtime.device.stop import Stop
from pipelab.runtime.device.threads import run_threads
from pipelab.runtime.device.worker import DeviceLog, Plan, Worker, plan_devices
from pipelab.runtime.report import CostHistory, StepReport, merge_logs, slot_table, verify_order
from pipelab.runtime.setup.assembly import StageWithLoss
from pipelab.runtime.setup.fit import FitCheck
from pipelab.runtime.setup.loss_scale import advance, scale_of, unscale
from pipelab.runtime.setup.microbatches import batch_size, default_terms, make_inputs, make_tasks, reduction_of
from pipelab.runtime.setup.replicas import Replicas
from pipelab.runtime.setup.settings import Settings
from pipelab.runtime.update import Updates
from pipelab.schedules.checker import require_sound
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.wire import Channel, Route

__all__ = ["Stepper", "common", "device_meter"]

ANCHOR = 1e-3
"""How far times that a GPU has stamped may be off the host's clock (seconds)."""


@dataclass(frozen=True)
class _Call:
    """What one process was asked for: all of them must have been asked for the same."""

    training: bool
    batch: int | None
    step: int
    learns: bool
    signature: str


@dataclass
class _Cut:
    """A batch, cut: the table with its micro-batches' sizes, and what this process holds of them."""

    schedule: Schedule
    training: bool
    number: int
    payloads: list[Payload] | None = None
    tasks: list[Task] | None = None
    sizes: Sequence[int] = ()
    signature: tuple[str, ...] = ()


@dataclass
class _Part:
    """What one process has to tell of a step."""

    logs: dict[int, DeviceLog]
    loss: Tensor | None
    cpu: float


@dataclass
class _Walked:
    """What came of a walk: this process's workers, and what everyone has to tell."""

    workers: list[Worker]
    parts: list[_Part]
    logs: dict[int, DeviceLog] = field(init=False)
    cpu: float = field(init=False)
    loss: float | None = field(init=False)
    norm: float | None = None
    skipped: bool = False

    def __post_init__(self) -> None:
        self.logs = {r: log for part in self.parts for r, log in part.logs.items()}
        self.cpu = sum(part.cpu for part in self.parts)
        losses = [part.loss for part in self.parts if part.loss is not None]
        self.loss = float(torch.stack(losses).sum()) if losses else None


class Stepper:
    """Runs steps of ``settings.schedule`` on the devices of this process; ``updates`` follow a training step."""

    def __init__(self, settings: Settings, replicas: Replicas, updates: Updates, fit: FitCheck, stop: Stop) -> None:
        self.settings, self.schedule = settings, settings.schedule
        self.places, self.peers, self._stages = replicas.places, replicas.peers, replicas.stages
        self._replicas, self.updates, self._fit, self._stop = replicas, updates, fit, stop
        loss = settings.loss
        self._terms = default_terms(loss) if settings.loss_terms is None else settings.loss_terms
        self._reduction = "mean" if loss is None else reduction_of(loss)
        self.memory = {r: MemoryMeter(enabled=settings.measure_memory) for r in self.peers.own}
        self._allocators: dict[int, AllocatorPeak] = {}
        self._looked: set[tuple[int, int]] = set()
        """The stages whose graph was looked through for parameters that are not theirs."""
        self._plans: dict[str, tuple[list[Plan], dict[Channel, list[Route]]]] = {}
        self._histories: dict[Any, CostHistory] = {}

    def run(self, inputs: Any, targets: Any, *, training: bool, number: int) -> StepReport:
        """One step, or (without ``training``) an evaluation. Its ``number`` keys the dropout."""
        cut = self._look_and_cut(inputs, targets, training, number)
        self._replicas.prepare(training)
        walked = self._walk(cut)
        if training:
            self._update(walked)
        return self._report(cut, walked)

    # ---- look, and cut -------------------------------------------------------------------------------------------

    def _look_and_cut(self, inputs: Any, targets: Any, training: bool, number: int) -> _Cut:
        schedule = self.schedule if training or self.schedule.forward_only else self.schedule.forward_part()
        cut = _Cut(schedule, training, number)
        calls = self.peers.agree(partial(self._look, cut, inputs, targets))
        batch = _same_call(calls)
        cut.sizes = schedule.microbatch_sizes(batch)
        cut.schedule = schedule.for_batch(batch)
        cut.signature = tuple(call.signature for call in calls)
        return cut

    def _look(self, cut: _Cut, inputs: Any, targets: Any) -> _Call:
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
            sizes = self.schedule.microbatch_sizes(batch)
            if 0 in self._stages:
                cut.payloads = make_inputs(inputs, sizes)
            if last in self._stages and targets is not None:
                cut.tasks = make_tasks(targets, sizes, self._terms, self._reduction)
            if cut.payloads is not None and len(self._stages) > last:
                self._fit.check(cut.payloads[0], None if cut.tasks is None else cut.tasks[0].targets)
        learns = any(p.requires_grad for stage in self._stages.values() for p in stage.parameters())
        return _Call(cut.training, batch, cut.number, learns, self._signature(cut))

    def length(self, inputs: Any, targets: Any) -> int | None:
        """Sequences in the batch, as far as this process was told."""
        if 0 not in self._stages and inputs is None and targets is None:
            return None
        return batch_size(inputs, targets, needs_inputs=0 in self._stages)

    def _signature(self, cut: _Cut) -> str:
        """What the shapes of messages may depend on besides the sizes of micro-batches, as far as this process sees."""
        if len(self.peers.own) == self.schedule.devices:
            return ""
        first = cut.payloads[0].tensors if cut.payloads else ()
        frozen = [p.requires_grad for stage in self._stages.values() for p in stage.parameters()]
        modes = [module.training for stage in self._stages.values() for module in stage.modules()]
        cast = [(kind, torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
        told = (frozen, modes, cast, torch.get_default_dtype(), [(tuple(t.shape[1:]), t.dtype) for t in first])
        return hashlib.sha256(repr(told).encode()).hexdigest()

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

    # ---- walk ----------------------------------------------------------------------------------------------------

    def _walk(self, cut: _Cut) -> _Walked:
        """Run this process's devices through their programs; everyone's, or nobody's, go through."""
        kind = "train" if cut.training else "evaluate"
        if kind not in self._plans:
            require_sound(cut.schedule, outstanding=self.settings.outstanding)
            self._plans[kind] = plan_devices(cut.schedule)
        plans, channels = self._plans[kind]
        modelled = {"latency": self.settings.latency, "bandwidth": self.settings.bandwidth}
        link = modelled if self.settings.clock == "wall" else {}
        signature = (kind, *cut.signature)
        wire = self.peers.open_wire(
            channels, self.places, cut.sizes, signature=signature, outstanding=self.settings.outstanding, **link
        )
        self._stop.watch(wire)
        caller = CallerSettings([self.places[r] for r in self.peers.own])
        workers: list[Worker] = []
        cpu: list[float] = []

        def work() -> None:
            self._allocators = {r: AllocatorPeak(self.places[r]) for r in self.peers.own if self._has_own_allocator(r)}
            try:
                workers.extend(self._make_workers(cut, plans, wire, caller))
                runs = [partial(caller.run, worker.run, worker.torch_device) for worker in workers]
                outcomes = run_threads(runs, wire.abort, one_core_each=self.updates.on_cpu)
                cpu.extend(outcome.cpu for outcome in outcomes)
            except BaseException:
                wire.abort()
                raise

        try:
            self.peers.agree(work)
            parts = self.peers.agree(lambda: self._tell(workers, cut.schedule, sum(cpu)))
        except BaseException:
            wire.abort()
            raise
        finally:
            self._stop.forget()
            wire.close()
        if cut.training:
            self._looked |= {(worker.device, s) for worker in workers for s in worker.runners}
        return _Walked(workers, parts)

    def _has_own_allocator(self, r: int) -> bool:
        here = [self.places[other] for other in self.peers.own]
        return self.places[r].type == "cuda" and here.count(self.places[r]) == 1

    def _make_workers(
        self, cut: _Cut, plans: Sequence[Plan], wire: StepWire, caller: CallerSettings
    ) -> Iterator[Worker]:
        schedule = cut.schedule
        starts = [sum(cut.sizes[:i]) for i in range(len(cut.sizes))]
        last = schedule.stages - 1
        takes_no_turns = len(self.peers.own) > 1 and self.settings.clock != "device"
        for r in self.peers.own:
            allowed = self.settings.limits[r]
            planned = math.isfinite(allowed)
            model_states = self.updates.model_states(r, planned=cut.training) if planned else ModelStates()
            self.memory[r].reset(self._replicas.tensors_on(r), allowed - model_states.total)
            modules = {s: self._replicas.modules[r, s] for s in schedule.stages_on(r)}
            runners = {
                s: StageRunner(
                    s,
                    module,
                    self.memory[r],
                    caller,
                    loss=self._loss_of(module) if s == last and cut.tasks is not None else None,
                    recomputed={i for stage, i in schedule.recomputed if stage == s},
                    training=cut.training,
                    key=(self.settings.seed, cut.number),
                    first_sequences=starts,
                    keep_outputs=not cut.training and s == last,
                    scale=scale_of(self.settings.grad_scaler) if cut.training else 1.0,
                    looks=(r, s) not in self._looked,
                    shares_generator=takes_no_turns and self.places[r].type == "cpu",
                )
                for s, module in modules.items()
            }
            batch = (cut.payloads, cut.tasks)
            meter = device_meter(r, self.settings.clock, self._replicas)
            yield Worker(
                r, plans[r], runners, wire, meter, self.memory[r], self.places[r], *batch, model_states, allowed
            )

    def _loss_of(self, module: nn.Module) -> Callable[[Any, Any], Tensor] | None:
        """The loss; one that has parameters lives in the last stage's module."""
        return module.loss if isinstance(module, StageWithLoss) else self.settings.loss

    def _tell(self, workers: Sequence[Worker], schedule: Schedule, cpu: float) -> _Part:
        """What this process has to tell of a step that went through. Waits for the device's work to be done."""
        logs = {}
        for worker in workers:
            worker.log.readings = worker.meter.readings()
            worker.log.peak = self.memory[worker.device].peak
            worker.log.model_states = self.updates.model_states(worker.device)
            allocator = self._allocators.get(worker.device)
            worker.log.allocated = None if allocator is None else allocator.read()
            logs[worker.device] = worker.log
        last = schedule.stages - 1
        homes = [worker for worker in workers if last in worker.runners]
        found = [loss.to(torch.float64).cpu() for worker in homes for loss in worker.runners[last].losses.values()]
        return _Part(logs, torch.stack(found).sum() if found else None, cpu)

    # ---- update, and report --------------------------------------------------------------------------------------

    def _update(self, walked: _Walked) -> None:
        """Every stage's update, at the flush."""
        self._replicas.reduce()
        scaler = self.settings.grad_scaler
        if scaler is not None and scaler.is_enabled():
            owned = [p for (_, s), module in self._replicas.modules.items() for _, p in self._replicas.owned(s, module)]
            walked.skipped = not all(self.peers.agree(lambda: unscale(owned, scale_of(scaler))))
            advance(scaler, finite=not walked.skipped)
        walked.norm = self._replicas.clip(self.settings.clip_norm)
        if walked.skipped:
            return
        for found, seconds in self.peers.agree(partial(self.updates.step, walked.loss)):
            walked.cpu += seconds
            for r, (cost, model_states) in found.items():
                walked.logs[r].update_cost, walked.logs[r].model_states = cost, model_states

    def _report(self, cut: _Cut, walked: _Walked) -> StepReport:
        schedule, batch = cut.schedule, sum(cut.sizes)
        offsets, slack = self.peers.clock_offsets()
        of_process = [offsets[k] for k, part in enumerate(walked.parts) for _ in part.logs]
        in_order = [walked.logs[r] for r in range(schedule.devices)]
        merged = merge_logs(in_order, of_process, on_device=self.peers.asynchronous)
        slack += ANCHOR if self.peers.asynchronous else 0.0
        verify_order(schedule, merged, slack)
        history = self._histories.setdefault((cut.training, batch), CostHistory(self.settings.window))
        on_cpu = all(place.type == "cpu" for place in self.places)
        return StepReport(
            schedule=schedule,
            logs=merged,
            clock=self.settings.clock,
            batch=batch,
            past=history.add(slot_table(merged)),
            unit_costs=self.settings.unit_costs,
            latency=self.settings.latency,
            bandwidth=self.settings.bandwidth,
            loss=walked.loss,
            step=cut.number,
            worker_cpu_seconds=walked.cpu if on_cpu else math.nan,
            peak_activation_bytes=tuple(log.peak for log in merged),
            peak_allocated_bytes=tuple(log.allocated for log in merged),
            gradient_norm=walked.norm,
            skipped=walked.skipped,
            outputs=None if cut.training else self._outputs(walked.workers, schedule),
        )

    def _outputs(self, workers: Sequence[Worker], schedule: Schedule) -> Any:
        """The last stage's outputs; each of its homes gets those of all."""
        last = schedule.stages - 1
        homes = [worker for worker in workers if last in worker.runners]
        found = {i: out for worker in homes for i, out in worker.runners[last].outputs.items()}
        if len(schedule.placement[last]) > 1:
            found = {i: out for part in self.peers.exchange(found) for i, out in part.items()}
        return _join([found[i] for i in range(schedule.microbatches)]) if homes else None


def device_meter(r: int, clock: str, replicas: Replicas) -> SlotMeter:
    """What times device r's slots; where devices share a processor, one slot at a time under the device clock."""
    places, peers = replicas.places, replicas.peers
    shared = peers.turn(places[r], places) if clock == "device" else None
    return make_meter(places[r], shared, alone=clock == "device" and len(peers.own) == 1)


def _same_call(calls: Sequence[_Call]) -> int:
    """The batch size, if all processes were asked for the same step. Raises ConfigurationError on all of them."""
    common("what to run", ["step" if call.training else "evaluate" for call in calls])
    common("the number of the step", [call.step for call in calls])
    if calls[0].training and not any(call.learns for call in calls):
        raise ConfigurationError("no parameter takes a gradient, all are frozen; use evaluate(inputs, targets)")
    batch: int = common("the number of sequences", [c.batch for c in calls], skip_none=True)
    return batch


def common(what: str, values: Sequence[Any], *, skip_none: bool = False) -> Any:
    """The one value that all ranks gave. Raises ConfigurationError that names two that differ."""
    given = [(rank, value) for rank, value in enumerate(values) if not (skip_none and value is None)]
    first_rank, first = given[0]
    for rank, value in given:
        if value != first:
            raise ConfigurationError(
                f"the ranks of this pipeline disagree about {what}: {first!r} on rank {first_rank}, {value!r} on rank "
                f"{rank}; every rank must do the same"
            )
    return first


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
