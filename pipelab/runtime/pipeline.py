"""``Pipeline``: a model, a schedule, and steps that really run it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.errors import ConfigurationError
from pipelab.models.split import SplitModel
from pipelab.quantities import Limits, Speeds
from pipelab.runtime.checkpoint import Checkpoint
from pipelab.runtime.engine import Engine
from pipelab.runtime.measuring.microbatch_costs import MicrobatchCosts, require_one_microbatch
from pipelab.runtime.observer import Observer, Watch
from pipelab.runtime.peers import Alone
from pipelab.runtime.report import StepReport
from pipelab.runtime.setup.assembly import make_stages, model_again
from pipelab.runtime.setup.devices import DeviceChoice, choose_devices
from pipelab.runtime.setup.microbatches import LossTerms
from pipelab.runtime.setup.settings import OptimizerFactory, Settings, require_one_of
from pipelab.schedules.schedule import Schedule
from pipelab.simulation.costs import Costs
from pipelab.simulation.links import Links

__all__ = ["Pipeline"]


class Pipeline:
    """Runs ``model`` by ``schedule``.

    ``model``: an nn.Sequential, a module with ``pipeline_sections()``, what ``split_model`` made of any other, or
    ``build_stage(s)``, a function that returns the module of stage s. The model is trained in place. ``cuts``: the
    first layer of stages 1, 2, ... (default: even).
    ``loss(output, targets)`` returns a scalar, a mean over its terms unless ``loss.reduction`` is ``"sum"``;
    ``loss_terms(targets)`` counts the terms of a micro-batch (default: elements of the targets, less those equal to
    ``loss.ignore_index``).
    ``optimizer``: makes an optimizer from a stage's list of (name, parameter); ``lr_scheduler`` one from that
    optimizer; both act once a step, at the flush. ``clip_norm`` limits the gradient's norm over all stages.
    ``grad_scaler`` scales the loss, for fp16: a gradient that is not finite, on any stage, skips the update of all
    (``report.skipped``).
    ``post_validation``: no device waits for the others' gradients. When its own part is over it makes its update, as if
    nothing were clipped or skipped. At the flush that is validated, and where it was wrong undone and made anew
    (``report.rolled_back``): the result is the same bit for bit, though an optimizer's hooks see what is undone, too.
    Until then each device keeps a copy of the weights, gradients and optimizer state that it steps. A stage whose
    gradient comes from several devices (it has two homes, or the home of a tied parameter) is stepped at the flush.
    ``launch``: ``"threads"``, one thread per device inside this process (under the device clock, and where slots are
    tiny, devices on CPU cores take turns in one); or ``"processes"``, one process per device,
    started here, or by torchrun: then each of them makes the Pipeline (``group``: whose ranks are its devices; default:
    all), builds the stages that live there, and needs inputs only on the rank of stage 0 and targets only on that of
    the last one. ``device``: see ``choose_devices``.
    ``clock``: what the report's timeline is read from. ``"device"``: each slot's own measured cost (median over the
    last ``window`` steps), composed as if each stage had its own device. ``"wall"``: what happened. ``"unit"``:
    ``costs`` as given. ``latency`` and ``bandwidth`` (seconds, bytes per second) model a link on top, ``links`` (see
    ``Links``) one for each pair of devices, and pack messages for those with a compression.
    ``memory_limit``: bytes allowed on each device (or a list, one entry a device; text such as ``"150MB"`` will do) for
    weights, gradients, optimizer state and activations; a step that would cross it stops with OutOfMemoryError.
    ``tied``: groups of names that are one parameter, for stages that ``build_stage`` makes in different processes;
    of a model, ties are seen.
    ``measure_memory`` and ``measure_costs`` switch off what a report tells of bytes and of time, and their cost.
    ``seed`` keys the dropout. ``sends``: how threads send (see ``wire.SENDS``), "asynchronous", "blocking" or
    "batched"; ``outstanding``: how many messages of a channel wait for no one all the same. A table that devices cannot
    finish so is refused, unless ``check=False``: then they meet in a ring of waits, and DeadlockError names it.
    ``time_limit``: seconds after which a step that has not come to its end stops with TimeLimitError, which names the
    devices that are stuck (default: ten minutes for the first, then twenty times the longest so far, and a minute at
    least; math.inf: never). Processes are then ended; a thread cannot be, and a new Pipeline works beside it.
    ``check_finite`` stops at the first activation, loss or gradient that is nan or infinite, with StageError that is
    also NonFiniteError, and says where; it reads every value once more (with a ``grad_scaler`` not the gradients).
    With a schedule that updates weights on the way (``"pipedream"``, ``"vertical-sync"``, ``"2bw"``) a step takes m
    micro-batches and leaves the pipeline full (see ``drain``). ``lr_scheduler`` then acts at each update of its stage:
    what it counts (``total_steps``, say) are updates, m a step, or one with ``"2bw"``. A step that fails leaves nothing
    under way, and stages that may differ in updates: load a checkpoint then. ``stash=False`` keeps no older weights.
    ``speeds``: how fast each device is, relative to what is measured (2: twice as fast; default: all 1). Clocks divide
    the costs of a device by its speed; under the wall clock the fastest is as measured, and the others really wait.
    ``monitor``: a ``Monitor``, or anything that takes the report of each step (``observe``). Where it raises, the step
    is made all the same; it is told in a warning, and not asked again. Under torchrun rank 0 of all tells its own.
    ``mesh``: a DeviceMesh of processes that torchrun started (see ``make_mesh``), with axes "dp", "pp" and "tp". Each
    replica takes its share of the batch, of any size; gradients, loss and clipping are those of all shares together.
    With threads each process is a replica, and the mesh has a "dp" axis alone. Over "tp" layers are split by
    ``tensor_plan``: styles of torch.distributed.tensor.parallel by names, or a function of (stage, mesh); TransformerLM
    needs none. ``shard``: each replica keeps a part of the weights, and gathers them once a step ("keep") or for each
    forward and backward ("regather"). All ranks together ask for what is split: gradients, states, checkpoints.

    Raises ConfigurationError or ScheduleError before anything starts.
    """

    def __init__(
        self,
        model: nn.Module | SplitModel | Callable[[int], nn.Module],
        schedule: Schedule,
        *,
        loss: Callable[[Any, Any], Tensor] | None = None,
        optimizer: OptimizerFactory | None = None,
        launch: str = "threads",
        group: Any = None,
        clock: str = "device",
        device: DeviceChoice = None,
        cuts: Sequence[int] | None = None,
        lr_scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
        clip_norm: float | None = None,
        costs: Costs | None = None,
        latency: float = 0.0,
        bandwidth: float = math.inf,
        links: Links | None = None,
        loss_terms: LossTerms | None = None,
        seed: int = 0,
        measure_memory: bool = True,
        measure_costs: bool = True,
        memory_limit: Limits = None,
        sends: str = "asynchronous",
        outstanding: int | None = None,
        check: bool = True,
        window: int = 9,
        tied: Sequence[Sequence[str]] = (),
        grad_scaler: torch.amp.GradScaler | None = None,
        time_limit: float | None = None,
        check_finite: bool = False,
        stash: bool = True,
        post_validation: bool = False,
        speeds: Speeds = None,
        monitor: Observer | None = None,
        mesh: Any = None,
        tensor_plan: Any = None,
        shard: str | None = None,
    ) -> None:
        require_one_of("launch", launch, ("threads", "processes"))
        settings = Settings(
            schedule,
            loss=loss,
            optimizer=optimizer,
            clock=clock,
            lr_scheduler=lr_scheduler,
            clip_norm=clip_norm,
            costs=costs,
            links=Links.either(latency, bandwidth, links),
            loss_terms=loss_terms,
            seed=seed,
            measure_memory=measure_memory,
            measure_costs=measure_costs,
            memory_limit=memory_limit,
            sends=sends,
            outstanding=outstanding,
            check=check,
            window=window,
            tied=tied,
            grad_scaler=grad_scaler,
            time_limit=time_limit,
            check_finite=check_finite,
            stash=stash,
            post_validation=post_validation,
            speeds=speeds,
            tensor_plan=tensor_plan,
            shard=shard,
        )
        if mesh is None and (tensor_plan is not None or shard is not None):
            raise ConfigurationError("tensor_plan= and shard= say how a mesh splits layers; give mesh=make_mesh(...)")
        self.settings, self.launch, self._watch = settings, launch, Watch(monitor)
        self._model, self._cuts, self._device, self._group, self._mesh = model, cuts, device, group, mesh
        self._engine: Any = self._open(settings, model, cuts)

    def _open(self, settings: Settings, model: Any, cuts: Sequence[int] | None) -> Any:
        """An engine that runs ``model`` by these settings."""
        if self.launch == "threads" and self._mesh is None:
            if self._group is not None:
                raise ConfigurationError("group= is for launch='processes'; threads need none")
            places = choose_devices(self._device, settings.schedule.devices)
            parts = make_stages(model, settings.schedule, cuts, range(settings.schedule.stages))
            return Engine(settings, parts, places, Alone(settings.schedule.devices))
        from pipelab.runtime.processes import open_engine, open_replica  # torch.distributed is loaded when it is needed

        if self.launch == "threads":
            return open_replica(settings, model, cuts, self._device, self._mesh)
        return open_engine(settings, model, cuts, self._device, self._group, self._mesh)

    def reschedule(self, schedule: Schedule, cuts: Sequence[int] | None = None) -> None:
        """Go on with another schedule, or other ``cuts`` of the model, from the next step on.

        Weights, optimizers, schedulers, scaler, step number and random generators go on where they are, and all
        settings stay: training is what it would be in a new Pipeline that loads what this one saves. Without ``cuts``
        the ones that are there stay, or for another number of stages are even. What ``build_stage`` made, or
        ``split_model``, keeps its number of stages. Costs are measured anew, and gradients are those of the next step.
        Between threads, and from a notebook, the number of devices may change. Under torchrun all ranks call it, each
        has one device as before, and stages that move from one rank to another are sent to all.

        Raises ConfigurationError or ScheduleError for what cannot run, or while micro-batches are under way (see
        ``drain``). Whatever it raises, this Pipeline is as it was.
        """
        if cuts is None and isinstance(schedule, Schedule) and schedule.stages == self.schedule.stages:
            cuts = self._cuts
        old = self._engine
        self._engine = old.succeeded(
            lambda: (replace(self.settings, schedule=schedule), self._as_made(schedule)),
            lambda planned: self._open(planned[0], planned[1], cuts),
        )
        self.settings, self._cuts = self._engine.settings, cuts
        old.close(finish=False)

    def _as_made(self, schedule: Schedule) -> Any:
        """The model for another schedule."""
        if self.launch == "processes" and isinstance(self._engine, Engine):
            from pipelab.runtime.processes.join import require_size

            require_size(schedule.devices, self.schedule.devices)
        return model_again(self._model, schedule, self.schedule.stages, dict(self._engine.stages()))

    @property
    def schedule(self) -> Schedule:
        """The table that is run."""
        return self.settings.schedule

    @property
    def clock(self) -> str:
        """What timelines are read from."""
        return self.settings.clock

    @property
    def rank(self) -> int:
        """This process's place in the pipeline; 0 where one process speaks for all (threads, or a notebook)."""
        return self._engine.rank

    @property
    def replica(self) -> int:
        """Which replica of a mesh this process is a part of; 0 without one."""
        return self._engine.replica

    @property
    def backend(self) -> str:
        """What carries messages: "memory" between threads, "gloo" or "nccl" between processes."""
        return str(self._engine.backend)

    @property
    def torch_devices(self) -> tuple[torch.device, ...]:
        """Where each device keeps its tensors."""
        return self._engine.places

    @property
    def step_number(self) -> int:
        """Number of the next step; keys the dropout."""
        return self._engine.step_number

    @step_number.setter
    def step_number(self, number: int) -> None:
        self._engine.step_number = number

    @property
    def speeds(self) -> tuple[float, ...]:
        """How fast each device is; may be set between steps, by all ranks alike; None is as measured."""
        return tuple(self.settings.speeds or (1.0,) * self.schedule.devices)

    @speeds.setter
    def speeds(self, speeds: Speeds) -> None:
        self._engine.set_speeds(speeds)

    def step(self, inputs: Any, targets: Any) -> StepReport:
        """One training step: all micro-batches forward and backward, then (with an optimizer) one update.

        ``inputs`` and ``targets`` hold the whole batch along their first dimension: tensors or tuples of tensors.
        Gradients stay in ``.grad`` until the next step. Raises ConfigurationError before anything starts, StageError
        (also of the original exception's type) if a stage raises, OutOfMemoryError if a device is not allowed enough.
        """
        run = partial(self._engine.step, inputs, targets)
        return self._watch.step(run) if self._engine.leads else run()

    def drain(self) -> StepReport | None:
        """Finish the micro-batches that are on their way; None if there are none, as after a schedule that flushes.

        With ``"pipedream"``, ``"vertical-sync"`` and ``"2bw"`` the pipeline stays full from step to step. After
        ``drain()`` all gradients have gone into an update, and the model holds the newest weights of all stages.
        """
        return self._engine.drain()

    @property
    def under_way(self) -> int:
        """How many micro-batches of earlier steps are not finished yet."""
        return self._engine.under_way

    def evaluate(self, inputs: Any, targets: Any = None) -> StepReport:
        """Forwards only, in evaluation mode and without gradients: the loss (given targets) and the outputs."""
        return self._engine.evaluate(inputs, targets)

    def profile(self, inputs: Any, targets: Any, repeats: int = 3) -> Costs:
        """Measure what one micro-batch of weight 1 costs, stage by stage, with one device at work at a time.

        Runs the first batch / m sequences through all stages and back, ``repeats`` times after a warm-up. Returns Costs
        with a forward, backward, message and activation size per stage. Parameters do not change.
        """
        return self._engine.profile(inputs, targets, repeats)

    def measure_microbatch(self, inputs: Any, targets: Any, *, updates: bool = False) -> MicrobatchCosts:
        """What a table's only micro-batch costs, there and back; ``updates``: also an update, of a copy."""
        require_one_microbatch(self.schedule)
        return self._engine.measure_microbatch(inputs, targets, updates)

    def verify(self, inputs: Any, targets: Any) -> float:
        """The proof: run the schedule on this batch, and the model in one piece on the whole of it, and compare.

        Returns max |g - g*| / max |g*| over the whole model: about 1e-15 in float64 and 1e-7 in float32 if all is
        right. No weight changes. The two differ for layers that look across the batch, losses that are not a mean over
        it, links with a compression, and dropout that is drawn anew (call ``model.eval()``, or use KeyedDropout).
        """
        return self._engine.verify(inputs, targets)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(name in the unsplit model, parameter), stage by stage. Under torchrun: of the stages on this rank."""
        return self._engine.named_parameters()

    def gradients(self) -> dict[str, Tensor]:
        """The gradients of the last step by name; zeros where a parameter got none."""
        return self._engine.gradients()

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and buffers by their names in the unsplit model, whose ``load_state_dict`` reads them.

        They are the tensors that are trained, not copies. Without a flush that holds until the next step only: an
        update may give a stage's newest weights new memory, so ask again, after ``drain()``. A tied parameter stands
        under its first name: a model that lists it twice reads it with ``strict=False``.
        """
        return self._engine.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy tensors in by name. Raises ConfigurationError if names or shapes do not match.

        Under torchrun each rank takes its own from the whole model's state, and all ranks call it.
        """
        self._engine.load_state_dict(state)

    def optimizer_state(self) -> dict[str, Any]:
        """What the optimizers remember, by the unsplit model's names, with schedulers, scaler and step number.

        ``{"state": {name: {...}}, "param_groups": [{"params": [names], "lr": ...}]}``, the form of
        ``torch.distributed.checkpoint.state_dict``, whatever stages the model is cut into. Raises ConfigurationError if
        there is no optimizer. Under torchrun: of the stages on this rank.
        """
        return self._engine.optimizer_state()

    def load_optimizer_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``optimizer_state`` gave, here or in another launch, cut into these or other stages.

        Raises ConfigurationError, and changes nothing, if names do not match. Under torchrun each rank takes its own
        from the whole model's state, and all ranks call it.
        """
        self._engine.load_optimizer_state(state)

    def save(self, folder: str | os.PathLike[str], *, data: Any = None, keep: int | None = 2) -> Path:
        """Write down all that is needed to go on from here; returns the new folder, ``folder/step-00000012``.

        Weights, optimizers, schedulers, scaler, step number, the states of random generators, and ``data``: your own
        place in your data, say, made of numbers, text, tensors, lists, tuples and dicts. Names are the unsplit model's.
        The folder gets its name when all of it is on the disk: a crash at any moment leaves the last complete one. Then
        those before it are removed, but the last ``keep`` (None: none is). Under torchrun all ranks call it, each
        writes its own stages, into a folder that all see, and ``data`` is rank 0's.

        ``torch.distributed.checkpoint`` reads it: ``load({"model": model.state_dict()}, checkpoint_id=...)``.
        Raises ConfigurationError for what cannot be written down, PipelabError if another save into ``folder`` is
        running, if micro-batches are under way, or if stages may differ in updates since a step failed without a flush;
        OSError if the disk is full. Nothing is left of it then.
        """
        return self._engine.save(Path(folder), data, keep)

    def load(self, folder: str | os.PathLike[str], *, optimizer: bool = True) -> Checkpoint:
        """Go on from a checkpoint: the newest in ``folder``, or ``folder`` itself; returns its step number and data.

        It may come from another launch, schedule, p, m, v. With the same of each, dtype and kernels, training goes on
        bit for bit, else to rounding (plain dropout draws anew where other processes take part). A Pipeline that has no
        optimizer takes weights and step number; so that one with an optimizer takes nothing but weights, say
        ``optimizer=False``. Under torchrun all ranks call it, each reads its own stages.

        No code in it is run, whoever wrote it. Raises ConfigurationError, and changes nothing, if there is none, if it
        is damaged or of a newer version, or if it does not fit this Pipeline.
        """
        return self._engine.load(Path(folder), optimizer)

    def gather(self, tensors: Mapping[str, Any]) -> dict[str, Any] | None:
        """Copies of all ranks' tensors, by name, on the CPU of rank 0; None on the others. All ranks call it.

        Under torchrun each rank has the stages that live there: ``gather(pipeline.state_dict())`` is the whole model's,
        and ``gather(pipeline.optimizer_state())`` all that its optimizers remember.
        """
        return self._engine.gather(tensors)

    def close(self) -> None:
        """Finish what is on its way (see ``drain``), and let go of processes and connections.

        A ``with`` block that ends by an exception forgets what is on its way instead: no weight changes any more.
        Processes that were started here wait two seconds for another Pipeline, then end.
        """
        self._engine.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._engine.close(finish=kind is None)
