"""One process's part of a pipeline: the devices that it drives, and what it does together with the others.

With ``threads`` one engine drives all devices. With ``processes`` each process has an engine for one device, and all of
them walk through the same code: what has to be said or decided together goes through ``peers``.
"""

from __future__ import annotations

import copy
import hashlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.errors import ConfigurationError, PipelabError, ScheduleError, whole_number
from pipelab.memory import Resident
from pipelab.quantities import format_bytes
from pipelab.runtime.device.allocator import keep_freed_memory
from pipelab.runtime.device.caller_settings import Ambient
from pipelab.runtime.device.channels import StepWire
from pipelab.runtime.device.clocks import make_meter
from pipelab.runtime.device.memory import AllocatorPeak, MemoryMeter
from pipelab.runtime.device.payload import Payload
from pipelab.runtime.device.stage import StageRunner, Task
from pipelab.runtime.device.stop import Stop
from pipelab.runtime.device.threads import run_threads
from pipelab.runtime.device.worker import DeviceLog, Plan, Worker, plan_devices
from pipelab.runtime.measuring.microbatch_costs import Survey, survey_of
from pipelab.runtime.measuring.model_states import Planner, read_resident, rehearse_update
from pipelab.runtime.measuring.profile import costs_of, first_sequences, one_pass
from pipelab.runtime.measuring.proof import prove_gradients
from pipelab.runtime.peers import Peers
from pipelab.runtime.report import CostHistory, StepReport, merge_logs, slot_table, verify_order
from pipelab.runtime.setup.assembly import named_parameters, named_state, refuse_redrawn_masks, warn_of_batch_statistics
from pipelab.runtime.setup.by_name import Named
from pipelab.runtime.setup.fit import FitCheck
from pipelab.runtime.setup.microbatches import batch_size, default_terms, make_inputs, make_tasks, reduction_of
from pipelab.runtime.setup.optimizers import make_optimizers, step_schedulers
from pipelab.runtime.setup.replicas import Replicas
from pipelab.runtime.setup.settings import Settings
from pipelab.schedules.checker import require_sound
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.wire import Channel, Route
from pipelab.simulation.costs import Costs

__all__ = ["Engine"]

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
class _Ready:
    """A batch, cut: what this process holds of it."""

    payloads: list[Payload] | None
    tasks: list[Task] | None


@dataclass
class _Part:
    """What one process has to tell of a step."""

    logs: dict[int, DeviceLog]
    loss: Tensor | None
    cpu: float


class Engine(Named):
    """Runs the devices ``peers.own`` of a schedule; ``stages`` are the modules that live on them.

    ``places[r]`` is where device r keeps its tensors.
    """

    backend = property(lambda self: self.peers.backend, doc="What carries messages.")
    rank = property(lambda self: self.peers.own[0], doc="The first device that this process drives.")

    def __init__(
        self, settings: Settings, stages: Mapping[int, nn.Module], places: Sequence[torch.device], peers: Peers
    ) -> None:
        self.settings, self.places, self.peers = settings, tuple(places), peers
        self.schedule = settings.schedule
        self.step_number = 0
        self._clock = settings.clock
        if any(self.places[r].type == "cpu" for r in peers.own):
            keep_freed_memory()
        loss = settings.loss
        self._terms = default_terms(loss) if settings.loss_terms is None else settings.loss_terms
        self._reduction = "mean" if loss is None else reduction_of(loss)
        self._stages = dict(sorted(stages.items()))
        if "R" in self.schedule.ops:
            refuse_redrawn_masks(self._stages)
        warn_of_batch_statistics(self._stages, self.schedule.microbatches)
        self._replicas = Replicas(self.schedule, self._stages, self.places, peers)
        self._memory = {r: MemoryMeter(enabled=settings.measure_memory) for r in peers.own}
        self._allocators: dict[int, AllocatorPeak] = {}
        self._plans: dict[str, tuple[list[Plan], dict[Channel, list[Route]]]] = {}
        self._planner = Planner()
        self._histories: dict[Any, CostHistory] = {}
        self._fit = FitCheck(self._stages, loss)
        self._running = threading.Lock()
        self._stop = Stop()
        self._optimizers, self._lr_schedulers = make_optimizers(settings, self._replicas.modules)

    # ---- what a Pipeline asks for --------------------------------------------------------------------------------

    def step(self, inputs: Any, targets: Any) -> StepReport:
        """All micro-batches forward and backward, then one update."""
        return self._run(inputs, targets, training=True)

    def evaluate(self, inputs: Any, targets: Any) -> StepReport:
        """Forwards only, in evaluation mode and without gradients."""
        modes = [(module, module.training) for stage in self._replicas.modules.values() for module in stage.modules()]
        try:
            for stage in self._replicas.modules.values():
                stage.eval()
            return self._run(inputs, targets, training=False)
        finally:
            for module, mode in modes:
                module.training = mode

    def profile(self, inputs: Any, targets: Any, repeats: int) -> Costs:
        """What one micro-batch of weight 1 costs, stage by stage, with one device at work at a time."""
        repeats = whole_number("repeats", "", repeats)
        with self._working(), self._rehearsal(one_pass(self.schedule)) as alone:
            lengths = self.peers.agree(partial(self._length, inputs, targets))
            length = _common("the number of sequences", lengths, skip_none=True)
            size = max(1, round(length / sum(self.schedule.weights)))
            first = partial(first_sequences, count=size)
            for _ in range(repeats + 1):
                report = alone.step(first(inputs), first(targets))
            mine = float(make_inputs(first(inputs), [size])[0].size) if 0 in self._stages else None
            return costs_of(report, next(x for x in self.peers.exchange(mine) if x is not None))

    def survey(self, inputs: Any, targets: Any, updates: bool) -> Survey:
        """What one micro-batch costs, of a table of one micro-batch: one pass. ``updates``: also what an update would.

        No weight changes.
        """
        with self._working(), self._rehearsal(self.schedule) as alone:
            report = alone.step(inputs, targets)
            if not updates:
                return survey_of(report, ())
            found = [pair for part in self.peers.agree(self._survey_updates) for pair in part.items()]
            return survey_of(report, [pair for _, pair in sorted(found)])

    def _survey_updates(self) -> dict[int, tuple[Resident, float]]:
        """What each stage here will hold in training, and what an update of it costs."""
        own = self.peers.own
        ambient = Ambient([self.places[r] for r in own])

        def work(r: int) -> dict[int, float]:
            """As an update runs: in the device's own thread, on one core."""
            made = {s: optimizer for (device, s), optimizer in self._optimizers.items() if device == r}
            return {s: rehearse_update(optimizer, self._meter(r)) for s, optimizer in made.items()}

        runs = [partial(ambient.run, partial(work, r), self.places[r]) for r in own]
        outcomes = run_threads(runs, lambda: None, one_core_each=self._on_cpu)
        costs = {s: cost for outcome in outcomes for s, cost in outcome.result.items()}
        found = {}
        for key, module in self._replicas.modules.items():
            made = [self._optimizers[key]] if key in self._optimizers else []
            found[key[1]] = (self._planner.plan([module], made), costs.get(key[1], 0.0))
        return found

    def verify(self, inputs: Any, targets: Any) -> float:
        """max |g - g*| / max |g*| of a step on this batch, against the stages in one piece on the whole of it."""
        with self._working(), self._rehearsal(self.schedule) as alone:
            alone.step(inputs, targets)
            found = {name: grad.clone() for name, grad in alone.gradients().items()}
            last = self.schedule.stages - 1
            given = (inputs if 0 in self._stages else None, targets if last in self._stages else None)
            return prove_gradients(
                found, self._stages, given, self.settings, self.peers, self.places, step=self.step_number
            )

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(name in the unsplit model, parameter), stage by stage: those that live here."""
        for s, stage in self._stages.items():
            yield from named_parameters(s, stage)

    def named_state(self) -> Iterator[tuple[str, Tensor]]:
        """(name in the unsplit model, tensor) of parameters and persistent buffers that live here."""
        for s, stage in self._stages.items():
            yield from named_state(s, stage)

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Everyone's tensors by name in the process that drives device 0; None in the others."""
        with self._working():
            parts = self.peers.gather({name: tensor.detach().cpu() for name, tensor in tensors.items()})
        return None if parts is None else {name: tensor for part in parts for name, tensor in part.items()}

    def stages(self) -> list[tuple[int, nn.Module]]:
        """(stage, module) of those that live here."""
        return list(self._stages.items())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy tensors in by name. Raises ConfigurationError everywhere if names or shapes do not match anywhere."""
        with self._working():
            super().load_state_dict(state)

    def all_names(self) -> set[str]:
        """The names of the whole model's state, wherever it is."""
        own = sorted(name for name, _ in self.named_state())
        return {name for names in self.peers.exchange(own) for name in names}

    def together(self, work: Callable[[], None]) -> None:
        """Do ``work``; if it raises in any process of the pipeline, it raises in all."""
        self.peers.agree(work)

    def interrupt(self) -> None:
        """Stop the step that is running or about to; callable from another thread."""
        self._stop.interrupt()

    def resume(self) -> None:
        """Forget an interrupt that came too late to stop anything."""
        self._stop.forget()

    def close(self) -> None:
        """Let go of connections."""
        self.peers.close()

    # ---- one run -------------------------------------------------------------------------------------------------

    def _run(self, inputs: Any, targets: Any, *, training: bool) -> StepReport:
        with self._working():
            return self._run_alone(inputs, targets, training=training)

    @contextmanager
    def _working(self) -> Iterator[None]:
        """One thing at a time; and what goes wrong without the others' knowledge must not leave them waiting."""
        if not self._running.acquire(blocking=False):
            raise PipelabError("this Pipeline is running a step in another thread; wait for it, or make a second one")
        try:
            yield
        except BaseException as error:
            self.peers.abandon(error)
            raise
        finally:
            self._running.release()

    def _run_alone(self, inputs: Any, targets: Any, *, training: bool) -> StepReport:
        ready = _Ready(None, None)
        calls = self.peers.agree(partial(self._look, ready, inputs, targets, training))
        batch = self._same_call(calls)
        schedule = self.schedule if training or self.schedule.forward_only else self.schedule.forward_part()
        sizes = schedule.microbatch_sizes(batch)
        schedule = schedule.for_batch(batch)
        self._replicas.prepare(training)
        signature = tuple(call.signature for call in calls)
        workers, parts = self._walk(schedule, ready, sizes, training, signature)
        losses = [part.loss for part in parts if part.loss is not None]
        loss = float(torch.stack(losses).sum()) if losses else None
        norm = None
        logs = {r: log for part in parts for r, log in part.logs.items()}
        used = sum(part.cpu for part in parts)
        if training:
            self._replicas.reduce()
            norm = self._replicas.clip(self.settings.clip_norm)
            for found, seconds in self.peers.agree(partial(self._update, loss)):
                used += seconds
                for r, (cost, resident) in found.items():
                    logs[r].update_cost, logs[r].resident = cost, resident
        offsets, slack = self.peers.clock_offsets()
        of_process = [offsets[k] for k, part in enumerate(parts) for _ in part.logs]
        in_order = [logs[r] for r in range(schedule.devices)]
        merged = merge_logs(in_order, of_process, on_device=self.peers.asynchronous)
        slack += ANCHOR if self.peers.asynchronous else 0.0
        verify_order(schedule, merged, slack)
        history = self._histories.setdefault((training, batch), CostHistory(self.settings.window))
        on_cpu = all(place.type == "cpu" for place in self.places)
        report = StepReport(
            schedule=schedule,
            logs=merged,
            clock=self._clock,
            batch=batch,
            past=history.add(slot_table(merged)),
            unit_costs=self.settings.unit_costs,
            latency=self.settings.latency,
            bandwidth=self.settings.bandwidth,
            loss=loss,
            step=self.step_number,
            worker_cpu_seconds=used if on_cpu else math.nan,
            peak_activation_bytes=tuple(log.peak for log in merged),
            peak_allocated_bytes=tuple(log.allocated for log in merged),
            gradient_norm=norm,
            outputs=None if training else self._outputs(workers, schedule),
        )
        if training:
            self.step_number += 1
        return report

    def _resident(self, r: int, *, planned: bool = False) -> Resident:
        """What device r holds besides activations; ``planned``: with what a training step will add."""
        modules = [module for (device, _), module in self._replicas.modules.items() if device == r]
        optimizers = [made for (device, _), made in self._optimizers.items() if device == r]
        return self._planner.plan(modules, optimizers) if planned else read_resident(modules, optimizers)

    def _require_room(self, training: bool) -> None:
        """Raises ConfigurationError if a device's limit leaves no room for activations."""
        for r in self.peers.own:
            allowed = self.settings.limits[r]
            if not math.isfinite(allowed):
                continue
            resident = self._resident(r, planned=training)
            if resident.total >= allowed:
                raise ConfigurationError(
                    f"memory_limit allows {format_bytes(allowed)} on device {r}, which holds "
                    f"{format_bytes(resident.total)} before the first activation ({resident}); allow more, or use "
                    "more devices"
                )

    def _look(self, ready: _Ready, inputs: Any, targets: Any, training: bool) -> _Call:
        """Check what this process was given, before anything starts anywhere, and cut the batch."""
        loss, last = self.settings.loss, self.schedule.stages - 1
        if training:
            if self.schedule.forward_only:
                raise ScheduleError(f"schedule '{self.schedule.name}' has no backward; use evaluate(inputs, targets)")
            if loss is None or (targets is None and last in self._stages):
                raise ConfigurationError("a training step needs loss=... in the Pipeline and targets")
        elif targets is not None and loss is None:
            raise ConfigurationError("evaluate with targets needs loss=... in the Pipeline")
        self._require_room(training)
        batch = self._length(inputs, targets)
        if batch is not None:
            sizes = self.schedule.microbatch_sizes(batch)
            if 0 in self._stages:
                ready.payloads = make_inputs(inputs, sizes)
            if last in self._stages and targets is not None:
                ready.tasks = make_tasks(targets, sizes, self._terms, self._reduction)
            if ready.payloads is not None and len(self._stages) > last:
                self._fit.check(ready.payloads[0], None if ready.tasks is None else ready.tasks[0].targets)
        learns = any(parameter.requires_grad for _, parameter in self.named_parameters())
        return _Call(training, batch, self.step_number, learns, self._signature(ready))

    def _length(self, inputs: Any, targets: Any) -> int | None:
        """Sequences in the batch, as far as this process was told."""
        if 0 not in self._stages and inputs is None and targets is None:
            return None
        return batch_size(inputs, targets, needs_inputs=0 in self._stages)

    def _signature(self, ready: _Ready) -> str:
        """What the shapes of messages may depend on besides the sizes of micro-batches, as far as this process sees."""
        if len(self.peers.own) == self.schedule.devices:
            return ""
        first = ready.payloads[0].tensors if ready.payloads else ()
        frozen = [p.requires_grad for _, p in self.named_parameters()]
        modes = [module.training for stage in self._stages.values() for module in stage.modules()]
        cast = [(kind, torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
        told = (frozen, modes, cast, torch.get_default_dtype(), [(tuple(t.shape[1:]), t.dtype) for t in first])
        return hashlib.sha256(repr(told).encode()).hexdigest()

    def _same_call(self, calls: Sequence[_Call]) -> int:
        """The batch size, if all processes were asked for the same step. Raises ConfigurationError on all of them."""
        _common("what to run", ["step" if call.training else "evaluate" for call in calls])
        _common("the number of the step", [call.step for call in calls])
        if calls[0].training and not any(call.learns for call in calls):
            raise ConfigurationError("no parameter takes a gradient, all are frozen; use evaluate(inputs, targets)")
        batch: int = _common("the number of sequences", [c.batch for c in calls], skip_none=True)
        return batch

    def _walk(
        self, schedule: Schedule, ready: _Ready, sizes: Sequence[int], training: bool, signature: tuple[str, ...]
    ) -> tuple[list[Worker], list[_Part]]:
        """Run this process's devices through their programs; everyone's, or nobody's, go through."""
        kind = "train" if training else "evaluate"
        if kind not in self._plans:
            require_sound(schedule, outstanding=self.settings.outstanding)
            self._plans[kind] = plan_devices(schedule)
        plans, channels = self._plans[kind]
        modelled = {"latency": self.settings.latency, "bandwidth": self.settings.bandwidth}
        link = modelled if self._clock == "wall" else {}
        wire = self.peers.open_wire(
            channels,
            self.places,
            sizes,
            signature=(kind, *signature),
            outstanding=self.settings.outstanding,
            **link,
        )
        self._stop.watch(wire)
        ambient = Ambient([self.places[r] for r in self.peers.own])
        workers: list[Worker] = []
        cpu: dict[int, float] = {}

        def work() -> None:
            self._allocators = {r: AllocatorPeak(self.places[r]) for r in self.peers.own if self._has_own_allocator(r)}
            try:
                workers.extend(self._make_workers(schedule, plans, wire, ambient, ready, sizes, training))
                runs = [partial(ambient.run, worker.run, worker.torch_device) for worker in workers]
                outcomes = run_threads(runs, wire.abort, one_core_each=self._on_cpu)
                cpu.update(zip(self.peers.own, (outcome.cpu for outcome in outcomes), strict=True))
            except BaseException:
                wire.abort()
                raise

        try:
            self.peers.agree(work)
            parts = self.peers.agree(partial(self._tell, workers, schedule, sum(cpu.values())))
        except BaseException:
            wire.abort()
            raise
        finally:
            self._stop.forget()
            wire.close()
        return workers, parts

    def _has_own_allocator(self, r: int) -> bool:
        here = [self.places[other] for other in self.peers.own]
        return self.places[r].type == "cuda" and here.count(self.places[r]) == 1

    @property
    def _on_cpu(self) -> bool:
        return all(self.places[r].type == "cpu" for r in self.peers.own)

    def _make_workers(
        self,
        schedule: Schedule,
        plans: Sequence[Plan],
        wire: StepWire,
        ambient: Ambient,
        ready: _Ready,
        sizes: Sequence[int],
        training: bool,
    ) -> Iterator[Worker]:
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        last = schedule.stages - 1
        for r in self.peers.own:
            allowed = self.settings.limits[r]
            resident = self._resident(r, planned=training) if math.isfinite(allowed) else Resident()
            self._memory[r].reset(self._replicas.tensors_on(r), allowed - resident.total)
            runners = {
                s: StageRunner(
                    s,
                    self._replicas.modules[r, s],
                    self._memory[r],
                    ambient,
                    loss=self.settings.loss if s == last and ready.tasks is not None else None,
                    recomputed={i for stage, i in schedule.recomputed if stage == s},
                    training=training,
                    key=(self.settings.seed, self.step_number),
                    first_sequences=starts,
                    keep_outputs=not training and s == last,
                )
                for s in schedule.stages_on(r)
            }
            batch = (ready.payloads, ready.tasks)
            place = self.places[r]
            yield Worker(r, plans[r], runners, wire, self._meter(r), self._memory[r], place, *batch, resident, allowed)

    def _meter(self, r: int) -> Any:
        """What times device r's slots; where devices share a processor, one slot at a time under the device clock."""
        shared = self.peers.turn(self.places[r], self.places) if self._clock == "device" else None
        return make_meter(self.places[r], shared, alone=self._clock == "device" and len(self.peers.own) == 1)

    def _tell(self, workers: Sequence[Worker], schedule: Schedule, cpu: float) -> _Part:
        """What this process has to tell of a step that went through. Waits for the device's work to be done."""
        logs = {}
        for worker in workers:
            worker.log.readings = worker.meter.readings()
            worker.log.peak = self._memory[worker.device].peak
            worker.log.resident = self._resident(worker.device)
            allocator = self._allocators.get(worker.device)
            worker.log.allocated = None if allocator is None else allocator.read()
            logs[worker.device] = worker.log
        last = schedule.stages - 1
        homes = [worker for worker in workers if last in worker.runners]
        found = [loss.to(torch.float64).cpu() for worker in homes for loss in worker.runners[last].losses.values()]
        return _Part(logs, torch.stack(found).sum() if found else None, cpu)

    def _outputs(self, workers: Sequence[Worker], schedule: Schedule) -> Any:
        """The last stage's outputs; each of its homes gets those of all."""
        last = schedule.stages - 1
        homes = [worker for worker in workers if last in worker.runners]
        found = {i: out for worker in homes for i, out in worker.runners[last].outputs.items()}
        if len(schedule.placement[last]) > 1:
            found = {i: out for part in self.peers.exchange(found) for i, out in part.items()}
        return _join([found[i] for i in range(schedule.microbatches)]) if homes else None

    def _update(self, loss: float | None) -> tuple[dict[int, tuple[float, Resident]], float]:
        """Step each stage's optimizer on its device, all devices at once.

        Returns what that cost and what is held after it, by device, and CPU time.
        """
        if not self._optimizers:
            return {}, 0.0
        own = self.peers.own
        ambient = Ambient([self.places[r] for r in own])

        def work(r: int) -> float:
            meter = self._meter(r)
            for (device, _), made in self._optimizers.items():
                if device == r:
                    meter.begin()
                    try:
                        made.step()
                    finally:
                        meter.end()
            return float(sum(reading.cost for reading in meter.readings()))

        runs = [partial(ambient.run, partial(work, r), self.places[r]) for r in own]
        outcomes = run_threads(runs, lambda: None, one_core_each=self._on_cpu)
        step_schedulers(self._lr_schedulers, loss)
        costs = {r: (o.result, self._resident(r)) for r, o in zip(own, outcomes, strict=True)}
        return costs, sum(o.cpu for o in outcomes)

    # ---- rehearsals ----------------------------------------------------------------------------------------------

    @contextmanager
    def _rehearsal(self, schedule: Schedule) -> Iterator[Engine]:
        """This pipeline on ``schedule`` without its optimizer; gradients and buffers are as before afterwards."""
        alone = copy.copy(self)
        alone.schedule, alone._clock, alone._running = schedule, "device", threading.Lock()
        alone.settings = replace(self.settings, schedule=schedule, clip_norm=None)
        alone._plans, alone._histories, alone._optimizers, alone._lr_schedulers = {}, {}, {}, []
        grads = [(parameter, parameter.grad) for _, parameter in self.named_parameters()]
        with self._buffers_kept():
            try:
                yield alone
            finally:
                for parameter, grad in grads:
                    parameter.grad = grad

    @contextmanager
    def _buffers_kept(self) -> Iterator[None]:
        buffers = [(buffer, buffer.clone()) for stage in self._stages.values() for buffer in stage.buffers()]
        try:
            yield
        finally:
            for buffer, before in buffers:
                buffer.copy_(before)


def _common(what: str, values: Sequence[Any], *, skip_none: bool = False) -> Any:
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
