"""``Pipeline``: a model, a schedule, and steps that really run it."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.errors import ConfigurationError, PipelabError, ScheduleError, whole_number
from pipelab.runtime.allocator import keep_freed_memory
from pipelab.runtime.ambient import Ambient
from pipelab.runtime.assembly import (
    make_stages,
    named_parameters,
    named_state,
    refuse_redrawn_masks,
    refuse_shared_parameters,
    warn_of_batch_statistics,
)
from pipelab.runtime.channels import Wire
from pipelab.runtime.clocks import make_meter
from pipelab.runtime.devices import DeviceChoice, choose_devices
from pipelab.runtime.memory import MemoryMeter
from pipelab.runtime.microbatches import (
    LossTerms,
    batch_size,
    default_terms,
    make_inputs,
    make_tasks,
    reduction_of,
)
from pipelab.runtime.probe import check_fit
from pipelab.runtime.profile import costs_of, first_sequences, one_pass
from pipelab.runtime.reference import Chain, chain_gradients, gradient_error
from pipelab.runtime.report import CostHistory, StepReport, slot_table, verify_order
from pipelab.runtime.stage import StageRunner
from pipelab.runtime.threads import run_threads
from pipelab.runtime.worker import DeviceLog, Plan, Worker, plan_devices
from pipelab.schedules.checker import require_sound
from pipelab.schedules.schedule import Schedule, TimeTable
from pipelab.schedules.wire import Channel
from pipelab.simulation.costs import Costs

__all__ = ["Pipeline"]

OptimizerFactory = Callable[[list[tuple[str, nn.Parameter]]], torch.optim.Optimizer]
CLOCKS = ("device", "wall", "unit")
LAUNCHES = ("threads",)
BUILD_HINT = "build one with build_schedule('1f1b', devices=4, microbatches=4)"


class Pipeline:
    """Runs ``model`` by ``schedule``.

    ``model``: an nn.Sequential, a module with ``pipeline_sections()``, or ``build_stage(s)``, a function that returns
    the module of stage s. The model is trained in place. ``cuts``: the first layer of stages 1, 2, ... (default: even).
    ``loss(output, targets)`` returns a scalar, a mean over its terms unless ``loss.reduction`` is ``"sum"``;
    ``loss_terms(targets)`` counts the terms of a micro-batch (default: elements of the targets, less those equal to
    ``loss.ignore_index``).
    ``optimizer``: makes an optimizer from a stage's list of (name, parameter); ``lr_scheduler`` one from that
    optimizer; both act once a step, at the flush. ``clip_norm`` limits the gradient's norm over all stages.
    ``launch``: ``"threads"``, one thread per device inside this process. ``device``: see ``choose_devices``.
    ``clock``: what the report's timeline is read from. ``"device"``: each slot's own measured cost (median over the
    last ``window`` steps), composed as if each stage had its own device. ``"wall"``: what happened. ``"unit"``:
    ``costs`` as given. ``latency`` and ``bandwidth`` (seconds, bytes per second) model a link on top.
    ``seed`` keys the dropout. ``outstanding`` makes the wire strict (see ``Wire``).

    Raises ConfigurationError or ScheduleError before anything starts.
    """

    def __init__(
        self,
        model: nn.Module | Callable[[int], nn.Module],
        schedule: Schedule,
        *,
        loss: Callable[[Any, Any], Tensor] | None = None,
        optimizer: OptimizerFactory | None = None,
        launch: str = "threads",
        clock: str = "device",
        device: DeviceChoice = None,
        cuts: Sequence[int] | None = None,
        lr_scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
        clip_norm: float | None = None,
        costs: Costs | None = None,
        latency: float = 0.0,
        bandwidth: float = math.inf,
        loss_terms: LossTerms | None = None,
        seed: int = 0,
        measure_memory: bool = True,
        outstanding: int | None = None,
        window: int = 9,
    ) -> None:
        _check_settings(loss, optimizer, costs, loss_terms, seed, outstanding, window)
        _one_of("clock", clock, CLOCKS)
        _one_of("launch", launch, LAUNCHES)
        if not isinstance(schedule, Schedule):
            hint = "table.schedule() is its order" if isinstance(schedule, TimeTable) else BUILD_HINT
            raise ConfigurationError(f"schedule must be a Schedule, got {type(schedule).__name__}; {hint}")
        require_sound(schedule, outstanding=outstanding)
        if "U" in schedule.ops:
            raise ScheduleError(
                f"schedule '{schedule.name}' lists optimizer updates (U); this runtime updates once, at the flush: "
                "leave U out"
            )
        if clip_norm is not None and not clip_norm > 0:
            raise ConfigurationError(f"clip_norm must be positive, got {clip_norm!r}; leave it out for no clipping")
        if lr_scheduler is not None and optimizer is None:
            raise ConfigurationError("lr_scheduler needs an optimizer")
        self.schedule, self.launch, self.clock = schedule, launch, clock
        self.loss, self.clip_norm, self.seed = loss, clip_norm, seed
        self.unit_costs = Costs() if costs is None else costs
        self.latency, self.bandwidth = Costs(latency=latency, bandwidth=bandwidth).latency, bandwidth
        self.outstanding, self.window = outstanding, window
        self.torch_devices = choose_devices(device, schedule.devices)
        if any(torch_device.type == "cpu" for torch_device in self.torch_devices):
            keep_freed_memory()
        self.step_number = 0
        """Number of the next step; keys the dropout."""
        self._terms = default_terms(loss) if loss_terms is None else loss_terms
        self._reduction = "mean" if loss is None else reduction_of(loss)
        self._stages = make_stages(model, schedule, cuts)
        refuse_shared_parameters(self._stages)
        if "R" in schedule.ops:
            refuse_redrawn_masks(self._stages)
        warn_of_batch_statistics(self._stages, schedule.microbatches)
        self._replicas = self._place(schedule)
        self._memory = [MemoryMeter(enabled=measure_memory) for _ in range(schedule.devices)]
        self._plans: dict[str, tuple[list[Plan], list[Channel]]] = {}
        self._histories: dict[Any, CostHistory] = {}
        self._probed: set[Any] = set()
        self._running = threading.Lock()
        self._gpu_locks = self._share_gpus()
        self._optimizers: dict[tuple[int, int], torch.optim.Optimizer] = {}
        self._lr_schedulers: list[Any] = []
        if optimizer is not None:
            for key, module in self._replicas.items():
                named = [(name, p) for name, p in named_parameters(key[1], module) if p.requires_grad]
                if named:
                    self._optimizers[key] = _require_optimizer(optimizer(named))
            if lr_scheduler is not None:
                self._lr_schedulers = [lr_scheduler(made) for made in self._optimizers.values()]

    # ---- what a user calls ---------------------------------------------------------------------------------------

    def step(self, inputs: Any, targets: Any) -> StepReport:
        """One training step: all micro-batches forward and backward, then (with an optimizer) one update.

        ``inputs`` and ``targets`` hold the whole batch along their first dimension: tensors or tuples of tensors.
        Gradients stay in the parameters' ``.grad`` until the next step. Raises ConfigurationError before anything
        starts, StageError (which is also of the original exception's type) if a stage raises.
        """
        if self.schedule.forward_only:
            raise ScheduleError(f"schedule '{self.schedule.name}' has no backward; use evaluate(inputs, targets)")
        if self.loss is None or targets is None:
            raise ConfigurationError("a training step needs loss=... in the Pipeline and targets")
        if not any(parameter.requires_grad for _, parameter in self.named_parameters()):
            raise ConfigurationError("no parameter takes a gradient, all are frozen; use evaluate(inputs, targets)")
        return self._run(self.schedule, inputs, targets, training=True)

    def evaluate(self, inputs: Any, targets: Any = None) -> StepReport:
        """Forwards only, in evaluation mode and without gradients: the loss (given targets) and the outputs."""
        if targets is not None and self.loss is None:
            raise ConfigurationError("evaluate with targets needs loss=... in the Pipeline")
        schedule = self.schedule if self.schedule.forward_only else self.schedule.forward_part()
        modes = [(module, module.training) for stage in self._replicas.values() for module in stage.modules()]
        try:
            for stage in self._replicas.values():
                stage.eval()
            return self._run(schedule, inputs, targets, training=False)
        finally:
            for module, mode in modes:
                module.training = mode

    def profile(self, inputs: Any, targets: Any, repeats: int = 3) -> Costs:
        """Measure what one micro-batch of weight 1 costs, stage by stage, with one device at work at a time.

        Runs the first batch / m sequences through all stages and back, ``repeats`` times after a warm-up, and returns
        Costs with one forward, backward, message size and activation size per stage. Parameters do not change.
        """
        repeats = whole_number("repeats", "", repeats)
        size = max(1, round(batch_size(inputs, targets) / sum(self.schedule.weights)))
        first = partial(first_sequences, count=size)
        with self._rehearsal(one_pass(self.schedule)) as alone:
            for _ in range(repeats + 1):
                report = alone.step(first(inputs), first(targets))
        return costs_of(report, float(make_inputs(first(inputs), [size])[0].size))

    def verify(self, inputs: Any, targets: Any) -> float:
        """The proof: run the schedule on this batch, and the stages in one piece on the whole of it, and compare.

        Returns max |g - g*| / max |g*| over the whole model: about 1e-15 in float64 and 1e-7 in float32 if all is
        right. No weight changes. The two differ for layers that look across the batch, and for losses that are not a
        mean over it.
        """
        with self._rehearsal(self.schedule) as alone:
            alone.step(inputs, targets)
            found = {name: grad.clone() for name, grad in alone.gradients().items()}
            named = {name: p for name, p in self.named_parameters() if p.requires_grad}
            chain = Chain(self._stages, self.torch_devices[self.schedule.placement[0][0]])
            assert self.loss is not None
            true = chain_gradients(chain, self.loss, inputs, targets, named, seed=self.seed, step=self.step_number)
        return gradient_error(found, true.gradients)

    @contextmanager
    def _rehearsal(self, schedule: Schedule) -> Iterator[Pipeline]:
        """This pipeline on ``schedule`` without its optimizer; gradients and buffers are as before afterwards."""
        alone = copy.copy(self)
        alone.schedule, alone.clock, alone._running = schedule, "device", threading.Lock()
        alone._plans, alone._histories, alone._optimizers, alone._lr_schedulers = {}, {}, {}, []
        grads = [(parameter, parameter.grad) for _, parameter in self.named_parameters()]
        buffers = [(buffer, buffer.clone()) for stage in self._stages for buffer in stage.buffers()]
        try:
            yield alone
        finally:
            for buffer, before in buffers:
                buffer.copy_(before)
            for parameter, grad in grads:
                parameter.grad = grad

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(name in the unsplit model, parameter), stage by stage."""
        for s, stage in enumerate(self._stages):
            yield from named_parameters(s, stage)

    def gradients(self) -> dict[str, Tensor]:
        """The gradients of the last step by name; zeros where a parameter got none."""
        return {
            name: torch.zeros_like(p) if p.grad is None else p.grad
            for name, p in self.named_parameters()
            if p.requires_grad
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and buffers by their names in the unsplit model, whose ``load_state_dict`` reads them."""
        return {name: tensor.detach() for s, stage in enumerate(self._stages) for name, tensor in named_state(s, stage)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy tensors in by name. Raises ConfigurationError if names or shapes do not match."""
        own = {name: tensor for s, stage in enumerate(self._stages) for name, tensor in named_state(s, stage)}
        odd = sorted(set(own) ^ set(state))
        if odd:
            raise ConfigurationError(f"the state does not match this model: {', '.join(odd[:4])}")
        for name, tensor in own.items():
            if tensor.shape != state[name].shape:
                raise ConfigurationError(f"{name} is {list(tensor.shape)}, the state has {list(state[name].shape)}")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(state[name])

    def close(self) -> None:
        """Nothing is left running between steps with ``launch="threads"``; here for symmetry with ``with``."""

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- one run -------------------------------------------------------------------------------------------------

    def _run(self, schedule: Schedule, inputs: Any, targets: Any, *, training: bool) -> StepReport:
        if not self._running.acquire(blocking=False):
            raise PipelabError("this Pipeline is running a step in another thread; wait for it, or make a second one")
        try:
            return self._run_alone(schedule, inputs, targets, training=training)
        finally:
            self._running.release()

    def _run_alone(self, schedule: Schedule, inputs: Any, targets: Any, *, training: bool) -> StepReport:
        batch = batch_size(inputs, targets)
        sizes = schedule.microbatch_sizes(batch)
        schedule = schedule.for_batch(batch)
        ambient = Ambient(self.torch_devices)
        payloads = make_inputs(inputs, sizes)
        tasks = None
        if targets is not None:
            tasks = make_tasks(targets, sizes, self._terms, self._reduction)
        first = payloads[0].tensors[0] if payloads[0].single else payloads[0].tensors
        self._probe(first, None if tasks is None else tasks[0].targets)
        self._prepare_replicas(training)
        workers, wire = self._make_workers(schedule, ambient, payloads, tasks, sizes, training)
        on_cpu = all(device.type == "cpu" for device in self.torch_devices)
        runs = [partial(ambient.run, worker.run, worker.torch_device) for worker in workers]
        outcomes = run_threads(runs, wire.abort, one_core_each=on_cpu)
        logs: list[DeviceLog] = [outcome.result for outcome in outcomes]
        for worker, log in zip(workers, logs, strict=True):
            log.readings = worker.meter.readings()
        cpu = sum(outcome.cpu for outcome in outcomes)
        norm, loss = None, self._collect_loss(workers, schedule)
        if training:
            self._reduce_replicas()
            norm = self._clip()
            if self._optimizers:
                cpu += self._update(logs, ambient, on_cpu)
                for scheduler in self._lr_schedulers:
                    watches_loss = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
                    scheduler.step(*([loss] if watches_loss else []))
        verify_order(schedule, logs)
        history = self._histories.setdefault((training, batch), CostHistory(self.window))
        report = StepReport(
            schedule=schedule,
            logs=logs,
            clock=self.clock,
            batch=batch,
            past=history.add(slot_table(logs)),
            unit_costs=self.unit_costs,
            latency=self.latency,
            bandwidth=self.bandwidth,
            loss=loss,
            step=self.step_number,
            worker_cpu_seconds=cpu if on_cpu else math.nan,
            peak_activation_bytes=tuple(memory.peak for memory in self._memory),
            gradient_norm=norm,
            outputs=None if training else _join(workers, schedule),
        )
        if training:
            self.step_number += 1
        return report

    def _make_workers(
        self, schedule: Schedule, ambient: Ambient, payloads: Any, tasks: Any, sizes: Sequence[int], training: bool
    ) -> tuple[list[Worker], Wire]:
        kind = "train" if training else "evaluate"
        if kind not in self._plans:
            require_sound(schedule, outstanding=self.outstanding)
            self._plans[kind] = plan_devices(schedule)
        plans, channels = self._plans[kind]
        link = {"latency": self.latency, "bandwidth": self.bandwidth} if self.clock == "wall" else {}
        wire = Wire(channels, self.torch_devices, outstanding=self.outstanding, **link)
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        recomputed = {(action.stage, action.microbatch) for _, _, action in schedule.actions() if action.op == "R"}
        workers = []
        for r in range(schedule.devices):
            own = [module for (device, _), module in self._replicas.items() if device == r]
            self._memory[r].reset(tensor for module in own for tensor in (*module.parameters(), *module.buffers()))
            runners = {
                s: StageRunner(
                    s,
                    self._replicas[r, s],
                    self._memory[r],
                    ambient,
                    loss=self.loss if s == schedule.stages - 1 and tasks is not None else None,
                    recomputed={i for stage, i in recomputed if stage == s},
                    training=training,
                    key=(self.seed, self.step_number),
                    first_sequences=starts,
                    keep_outputs=not training and s == schedule.stages - 1,
                )
                for s in schedule.stages_on(r)
            }
            place = self.torch_devices[r]
            meter = make_meter(place, self._gpu_locks.get(place))
            workers.append(Worker(r, plans[r], runners, wire, meter, self._memory[r], place, payloads, tasks))
        return workers, wire

    def _probe(self, inputs: Any, targets: Any) -> None:
        """Check once per kind of micro-batch that the stages fit together."""
        tensors = [t for value in (inputs, targets) if value is not None for t in _tensors(value)]
        signature = tuple((tuple(t.shape[1:]), t.dtype) for t in tensors)
        if signature not in self._probed:
            check_fit(self._stages, self.loss if targets is not None else None, inputs, targets)
            self._probed.add(signature)

    def _update(self, logs: Sequence[DeviceLog], ambient: Ambient, on_cpu: bool) -> float:
        """Step each stage's optimizer on its device, all devices at once; returns their CPU time."""

        def work(r: int) -> list[float]:
            meter = make_meter(self.torch_devices[r], self._gpu_locks.get(self.torch_devices[r]))
            for (device, _), made in self._optimizers.items():
                if device == r:
                    meter.begin()
                    try:
                        made.step()
                    finally:
                        meter.end()
            return [reading.cost for reading in meter.readings()]

        runs = [partial(ambient.run, partial(work, r), self.torch_devices[r]) for r in range(len(logs))]
        outcomes = run_threads(runs, lambda: None, one_core_each=on_cpu)
        for log, outcome in zip(logs, outcomes, strict=True):
            log.update_cost = sum(outcome.result)
        return sum(outcome.cpu for outcome in outcomes)

    def _prepare_replicas(self, training: bool) -> None:
        """No old gradients; and a stage's second home starts from what the first one, the caller's module, holds."""
        for (_, s), module in self._replicas.items():
            if training:
                for parameter in module.parameters():
                    parameter.grad = None
            if module is not self._stages[s]:
                with torch.no_grad():
                    own = (*module.parameters(), *module.buffers())
                    first = (*self._stages[s].parameters(), *self._stages[s].buffers())
                    for copied, original in zip(own, first, strict=True):
                        copied.copy_(original)

    def _reduce_replicas(self) -> None:
        """A stage that lives on two devices gets the sum of both gradients on both, and is stepped alike."""
        for s, homes in enumerate(self.schedule.placement):
            if len(homes) < 2:
                continue
            owners = [list(self._replicas[r, s].parameters()) for r in homes]
            for parameters in zip(*owners, strict=True):
                grads = [p.grad for p in parameters if p.grad is not None]
                if not grads:
                    continue
                total = torch.stack([grad.to(parameters[0].device) for grad in grads]).sum(0)
                for parameter in parameters:
                    parameter.grad = total.to(parameter.device, copy=True)

    def _clip(self) -> float | None:
        """Clip by the norm over all stages, as clip_grad_norm_ does for the unsplit model; returns the norm."""
        if self.clip_norm is None:
            return None
        home = self.torch_devices[0]
        norms = []
        for stage in self._stages:
            grads = [p.grad for p in stage.parameters() if p.grad is not None]
            if grads:
                norms.append(torch.nn.utils.get_total_norm(grads).to(home))
        if not norms:
            return 0.0
        total = torch.linalg.vector_norm(torch.stack(norms))
        for module in self._replicas.values():
            torch.nn.utils.clip_grads_with_norm_(module.parameters(), self.clip_norm, total)
        return float(total)

    def _collect_loss(self, workers: Sequence[Worker], schedule: Schedule) -> float | None:
        last = schedule.stages - 1
        found = [loss for r in schedule.placement[last] for loss in workers[r].runners[last].losses.values()]
        return float(torch.stack([loss.to(torch.float64).cpu() for loss in found]).sum()) if found else None

    # ---- setting up ----------------------------------------------------------------------------------------------

    def _place(self, schedule: Schedule) -> dict[tuple[int, int], nn.Module]:
        """(device, stage) -> module. The first home of a stage has the caller's module, a second one a copy."""
        placed: dict[tuple[int, int], nn.Module] = {}
        for s, homes in enumerate(schedule.placement):
            for number, r in enumerate(homes):
                module = self._stages[s] if number == 0 else copy.deepcopy(self._stages[s])
                placed[r, s] = module.to(self.torch_devices[r])
        return placed

    def _share_gpus(self) -> dict[torch.device, threading.Lock]:
        """A lock for each GPU that several devices share, where slots are timed one by one."""
        gpus = [device for device in self.torch_devices if device.type == "cuda"]
        if self.clock != "device":
            return {}
        return {device: threading.Lock() for device in set(gpus) if gpus.count(device) > 1}


def _check_settings(
    loss: Any, optimizer: Any, costs: Any, loss_terms: Any, seed: Any, outstanding: Any, window: Any
) -> None:
    for name, value in (("loss", loss), ("loss_terms", loss_terms)):
        if value is not None and not callable(value):
            raise ConfigurationError(f"{name} must be a function, got {type(value).__name__}")
        if isinstance(value, type):
            raise ConfigurationError(f"{name} is the class {value.__name__}; pass an instance, {value.__name__}()")
    if optimizer is not None and (not callable(optimizer) or isinstance(optimizer, torch.optim.Optimizer)):
        raise ConfigurationError(
            f"optimizer must be a function that makes one from a stage's (name, parameter) pairs, got "
            f"{type(optimizer).__name__}; try lambda named: torch.optim.SGD([p for _, p in named], lr=0.1)"
        )
    if costs is not None and not isinstance(costs, Costs):
        raise ConfigurationError(f"costs must be Costs, got {type(costs).__name__}; try Costs(forward=1, backward=1)")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ConfigurationError(f"seed must be a whole number, got {seed!r}; try 0")
    if outstanding is not None and outstanding != 0:
        whole_number("outstanding", "", outstanding)
    whole_number("window", "", window)


def _require_optimizer(made: Any) -> torch.optim.Optimizer:
    if isinstance(made, torch.optim.LBFGS):
        raise ConfigurationError("LBFGS runs the model several times in one step; use an optimizer that does not")
    if not isinstance(made, torch.optim.Optimizer):
        raise ConfigurationError(f"optimizer must return a torch optimizer, got {type(made).__name__}")
    return made


def _one_of(what: str, given: str, allowed: Sequence[str]) -> None:
    if given not in allowed:
        raise ConfigurationError(f"{what} must be one of {', '.join(map(repr, allowed))}, got {given!r}")


def _tensors(value: Any) -> tuple[Tensor, ...]:
    return (value,) if isinstance(value, Tensor) else tuple(value)


def _join(workers: Sequence[Worker], schedule: Schedule) -> Any:
    """The last stage's outputs of all micro-batches, back in one batch (a list of them where shapes differ)."""
    last = schedule.stages - 1
    found = {i: out for r in schedule.placement[last] for i, out in workers[r].runners[last].outputs.items()}
    parts = [found[i][0] for i in range(schedule.microbatches)]
    home = parts[0][0].device
    columns = [[tensor.to(home) for tensor in column] for column in zip(*parts, strict=True)]
    if any(t.dim() == 0 or t.shape[1:] != column[0].shape[1:] for column in columns for t in column):
        rows = list(zip(*columns, strict=True))  # shapes that do not join: one entry per micro-batch
        return [row[0] for row in rows] if found[0][1] else rows
    joined = tuple(map(torch.cat, columns))
    return joined[0] if found[0][1] else joined
