"""A pipeline in processes that this one has started, seen from here.

The caller's model is trained in place: before a call its weights are copied to memory that each rank shares with this
process, and after it the new weights and gradients are copied back. Gradients, weights, frozen parameters and
train() / eval() travel at each call; other changes to the model do not.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.errors import ConfigurationError, PipelabError
from pipelab.models.split import SplitModel
from pipelab.runtime.checkpoint.generators import random_state, set_random_state
from pipelab.runtime.checkpoint.saving import Saving
from pipelab.runtime.device.program import compile_table
from pipelab.runtime.faults.limit import TimeLimit
from pipelab.runtime.faults.stop import shielded
from pipelab.runtime.measuring.microbatch_costs import MicrobatchCosts
from pipelab.runtime.measuring.profile import first_sequences
from pipelab.runtime.measuring.reference import buffers_kept, gradient_error, moved, unsplit_gradients
from pipelab.runtime.peers import Alone
from pipelab.runtime.processes.block import Block, Feed, batch_in_block, pack_with_tensors, unpack_with_tensors
from pipelab.runtime.processes.carry import pack
from pipelab.runtime.processes.pool import forget, lease, let_go
from pipelab.runtime.processes.rank import TRAINING, Flags, Given, Table, Task, table_of
from pipelab.runtime.processes.share import Share, as_parameters
from pipelab.runtime.processes.skeleton import Modules, skeleton
from pipelab.runtime.report import StepRecord, StepReport
from pipelab.runtime.setup.assembly import make_stages, warn_of_random_masks, with_loss
from pipelab.runtime.setup.devices import DeviceChoice, choose_devices
from pipelab.runtime.setup.fit import FitCheck
from pipelab.runtime.setup.loss_scale import advance
from pipelab.runtime.setup.microbatches import batch_size, make_inputs
from pipelab.runtime.setup.optimizer_state import OptimizerState, merge, on_cpu
from pipelab.runtime.setup.optimizers import require_optimizer
from pipelab.runtime.setup.settings import Settings
from pipelab.runtime.setup.ties import refuse_overlaps
from pipelab.runtime.steps.flight import require_one_gradient
from pipelab.runtime.steps.reports import Reports
from pipelab.simulation.costs import Costs

__all__ = ["RemoteEngine"]

_keys = itertools.count()
OPENING = 60.0
"""Seconds that opening and saving may take, where a step may take less."""


class RemoteEngine(Saving):
    """Speaks for the engines of all ranks."""

    rank = 0
    backend: str
    flown = (0, 0)

    def __init__(self, settings: Settings, model: Any, cuts: Sequence[int] | None, device: DeviceChoice) -> None:
        self.settings, self.schedule = settings, settings.schedule
        self.peers = Alone(self.schedule.devices)
        self.places = choose_devices(device, self.schedule.devices)
        self.step_number = 0
        self._key, self._limit = next(_keys), TimeLimit(settings.time_limit)
        self._running = threading.Lock()
        self._feeds: dict[int, Block] = {}
        self._modules: list[Modules] = []
        self._counts: list[int] = []
        self._flags: dict[int, Flags] = {}
        self._stages: dict[int, nn.Module] | None = None
        self._fit: FitCheck | None = None
        built = not isinstance(model, nn.Module | SplitModel) and callable(model) and not isinstance(model, type)
        self._parts = make_stages(model, self.schedule, cuts, () if built else range(self.schedule.stages))
        if not built:
            self._parts = with_loss(self._parts, settings)
            self._stages = self._parts.stages
            self._fit = FitCheck(self._stages, settings.loss, TimeLimit(settings.time_limit))
        elif isinstance(settings.loss, nn.Module) and next(settings.loss.parameters(), None) is not None:
            raise ConfigurationError(
                "the loss has parameters, and stages that are built in other processes would train a copy of them: "
                "build them into the last stage, or pass the model itself"
            )
        self._shares: list[Share] = []
        self._reports = Reports(settings, self.places)
        tasks, blocks = self._tasks(model)
        self._finalizer: weakref.finalize[Any, Any] | None = None
        try:
            told = shielded(lambda unwanted: self._start(tasks, blocks, unwanted))
        except BaseException:
            self.close()
            raise
        for message, category in told.items():
            warnings.warn(message, category, stacklevel=4)

    # ---- what a Pipeline asks for --------------------------------------------------------------------------------

    def step(self, inputs: Any, targets: Any) -> StepReport:
        """All micro-batches forward and backward, then one update."""
        record: StepRecord = self._call("record_step", inputs, targets)
        scaler = self.settings.grad_scaler
        if scaler is not None and scaler.is_enabled():  # as each rank has done with its own
            advance(scaler, finite=not record.skipped)
        return self._reports.make(record)

    def drain(self) -> StepReport | None:
        """Finish the micro-batches that are on their way; None if there are none."""
        return self._reports.make(self._call("record_drain", None, None)) if self.under_way else None

    def evaluate(self, inputs: Any, targets: Any) -> StepReport:
        """Forwards only, in evaluation mode and without gradients."""
        return self._reports.make(self._call("record_evaluation", inputs, targets))

    def profile(self, inputs: Any, targets: Any, repeats: int) -> Costs:
        """What one micro-batch of weight 1 costs, stage by stage."""
        costs: Costs = self._call("profile", inputs, targets, repeats)
        return costs

    def measure_microbatch(self, inputs: Any, targets: Any, updates: bool) -> MicrobatchCosts:
        """What one micro-batch costs, of a table of one micro-batch."""
        found: MicrobatchCosts = self._call("measure_microbatch", inputs, targets, updates)
        return found

    def verify(self, inputs: Any, targets: Any) -> float:
        """The gradient error of a step on this batch."""
        require_one_gradient(self.schedule)
        whole = self._parts.whole
        if whole is None:
            error: float = self._call("verify", inputs, targets)
            return error
        warn_of_random_masks(self._parts.stages)
        found: dict[str, Tensor] = self._call("rehearse", inputs, targets)
        assert self.settings.loss is not None
        module = self._parts.module
        assert module is not None
        given = moved((inputs, targets), next(module.parameters()).device)
        loss = [self.settings.loss] if isinstance(self.settings.loss, nn.Module) else []
        with buffers_kept([module, *loss]):
            true = unsplit_gradients(whole, self.settings.loss, *given, seed=self.settings.seed, step=self.step_number)
        return gradient_error(found, true.gradients)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(name in the unsplit model, parameter), stage by stage."""
        yield from ((name, tensor) for name, tensor in self._named(lambda table: table.parameters))  # type: ignore[misc]

    def named_state(self) -> Iterator[tuple[str, Tensor]]:
        """(name in the unsplit model, tensor) of parameters and persistent buffers."""
        yield from self._named(lambda table: table.state)

    def aliases(self) -> dict[str, str]:
        """Other names of tied parameters, and the one that each is known under."""
        return {name: known for share in self._shares for name, known in share.table.aliases}

    def optimizer_state(self) -> OptimizerState:
        """What the optimizers of all ranks remember, by name."""
        require_optimizer(self.settings)
        with self._working():
            return self._told_optimizer_state()

    def _told_optimizer_state(self) -> OptimizerState:
        replies = self._told("optimizer_state", [self._key] * self.schedule.devices)
        state = merge(unpack_with_tensors(data, specs, files[0]) for (data, specs), files in replies)
        return state | {"step_number": self.step_number}

    def load_optimizer_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the whole model. Raises ConfigurationError, and changes nothing, if it does not fit."""
        require_optimizer(self.settings)
        self.require_empty("loading")
        with self._working():
            self._take_optimizer_state(state)

    def _take_optimizer_state(self, state: Mapping[str, Any]) -> None:
        data, specs, block = pack_with_tensors(on_cpu(state), "the optimizer's state")
        arguments = [(self._key, data, specs)] * self.schedule.devices
        self._told("load_optimizer_state", arguments, [[block.file]] * self.schedule.devices)
        if self.settings.grad_scaler is not None and state.get("grad_scaler"):
            self.settings.grad_scaler.load_state_dict(state["grad_scaler"])
        self.step_number = state.get("step_number", self.step_number)

    @property
    def processes(self) -> list[str]:
        """Whose random generators this is in charge of."""
        return [*map(str, range(self.schedule.devices)), "caller"]

    def random_states(self) -> dict[str, Any]:
        """Of the ranks, and of this process."""
        told = self._told("random_states", [self._key] * self.schedule.devices)
        ranks = {name: state for states, _ in told for name, state in states.items()}
        return ranks | {"caller": random_state(self.places)}

    def take_random_states(self, states: Mapping[str, Any]) -> None:
        """Go on from there."""
        ranks = [{name: states[name]} if name in states else {} for name in self.processes[:-1]]
        self._told("take_random_states", [(self._key, state) for state in ranks])
        if "caller" in states:
            set_random_state(states["caller"], self.places)

    def gather(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """This process has them all."""
        found: dict[str, Any] = on_cpu(tensors)
        return found

    def _named(self, pick: Callable[[Table], tuple[tuple[str, int], ...]]) -> Iterator[tuple[str, Tensor]]:
        """By name, stage by stage. Of a stage that lives twice the first home counts."""
        found = [
            (share.table.stages[place], name, share.tensors[place])
            for share in self._shares
            for name, place in pick(share.table)
            if share.leads[place]
        ]
        yield from ((name, tensor) for _, name, tensor in sorted(found, key=lambda entry: entry[0]))

    def close(self, *, finish: bool = True) -> None:
        """Let go of this pipeline's part of the processes; before that ``finish`` what is on its way, or forget it."""
        try:
            if finish:
                self.drain()
        finally:
            self.flown = (0, self.flown[1])
            if self._finalizer is not None and self._finalizer.detach() is not None:
                shielded(lambda _: let_go(self._pool, self._key))

    # ---- opening -------------------------------------------------------------------------------------------------

    def _tasks(self, model: Any) -> tuple[list[Task], list[Block | None]]:
        """What to tell each rank, and the memory shared with it."""
        settings = pack(self.settings, "settings")
        seed = torch.initial_seed() % 2**62
        places = tuple(map(str, self.places))
        path = tuple(entry for entry in sys.path if isinstance(entry, str))
        if self._stages is None:
            build = pack(model, "build_stage")
            return [Task(settings, places, seed, path, build=build) for _ in self.places], [None for _ in self.places]
        refuse_overlaps(self._stages, within=True)
        for r in range(self.schedule.devices):
            self._modules.append(Modules(*(self._stages[s] for s in self.schedule.stages_on(r))))
            self._counts.append(len(self._modules[r].all()))
        tasks: list[Task] = []
        blocks: list[Block | None] = []
        for r in range(self.schedule.devices):
            own = self._tensors_on(r)
            try:
                skeletons = tuple(skeleton(s, self._stages[s], own) for s in self.schedule.stages_on(r))
            except ConfigurationError:
                pack(model, "model", lambda obj: 0 if isinstance(obj, Tensor) else None)  # names it as the user does
                raise
            block = Block.holding(own)
            blocks.append(block)
            tasks.append(Task(settings, places, seed, path, skeletons, block.specs, tied=self._parts.tied))
        return tasks, blocks

    def _start(
        self, tasks: Sequence[Task], blocks: Sequence[Block | None], unwanted: threading.Event
    ) -> dict[str, type[Warning]]:
        """Open the pipeline on all ranks and lay out what is shared with each; returns the warnings heard there."""
        self._pool = lease(self.schedule.devices, optimizers=self.settings.optimizer is not None)
        self._finalizer = weakref.finalize(self, forget, self._pool, self._key)
        self._finalizer.atexit = False  # the pools have their own
        files = [[] if block is None else [block.file] for block in blocks]
        replies = self._pool.call("open", [(self._key, task) for task in tasks], files, unwanted, limit=self._patience)
        grads = self._pool.call("grads", [self._key] * self.schedule.devices, limit=self._patience)
        told: dict[str, type[Warning]] = {}
        for r, ((table, self.backend, specs, caught), given) in enumerate(replies):
            told |= dict(caught)
            block = blocks[r] or Block(specs, given[0])
            grad_specs, grad_files = grads[r]
            grad_block = Block(grad_specs, grad_files[0])
            own = self._tensors_on(r) if self._stages is not None else as_parameters(table, block.tensors)
            homes = zip(table.stages, table.borrowed, strict=True)
            leads = [self.schedule.placement[s][0] == r and not borrowed for s, borrowed in homes]
            self._shares.append(Share(table, block, grad_block, own, leads))
        return told

    def _tensors_on(self, r: int) -> list[Tensor]:
        """The caller's tensors of the stages on device r, in the block's order."""
        return self._modules[r].tensors()

    # ---- one call ------------------------------------------------------------------------------------------------

    @contextmanager
    def _working(self) -> Iterator[None]:
        if not self._running.acquire(blocking=False):
            raise PipelabError("this Pipeline is running a step in another thread; wait for it, or make a second one")
        try:
            if self._finalizer is None or not self._finalizer.alive:
                raise PipelabError("this Pipeline is closed; make a new one")
            with self._noted():
                yield
        finally:
            self._running.release()

    def _told(self, name: str, arguments: Sequence[Any], files: Sequence[Sequence[int]] | None = None) -> Any:
        """A command that needs no batch, on all ranks."""
        return shielded(lambda unwanted: self._pool.call(name, arguments, files, unwanted, limit=self._patience))

    @property
    def _patience(self) -> float:
        """Seconds that what is no step may take."""
        return max(self._limit.seconds, OPENING)

    def _call(self, what: str, inputs: Any, targets: Any, *more: Any) -> Any:
        with self._working():
            if what != "record_drain":
                sizes = self.schedule.microbatch_sizes(batch_size(inputs, targets))
                if self._fit is not None:
                    self._fit.check(make_inputs(inputs, sizes)[0], first_sequences(targets, sizes[0]))
            if self._stages is not None:
                self._take_up()
            given = [self._given(r) for r in range(self.schedule.devices)]
            return shielded(lambda unwanted: self._exchange(what, inputs, targets, more, given, unwanted))

    def _take_up(self) -> None:
        """The caller's tensors as they are now."""
        twice = any(len(homes) > 1 for homes in self.schedule.placement)
        held = twice or bool(self._parts.tied) or self.settings.optimizer is not None
        for r, share in enumerate(self._shares):
            share.take_up(self._tensors_on(r), held=held)

    def _exchange(
        self, what: str, inputs: Any, targets: Any, more: Any, given: list[Given], unwanted: threading.Event
    ) -> Any:
        """Batch and weights out, the call, weights and gradients back."""
        feeds = [self._feed(r, inputs, targets) for r in range(self.schedule.devices)]
        for share in self._shares:
            share.fill()
        new = {r: block for r, (_, block) in enumerate(feeds) if block is not None and block is not self._feeds.get(r)}
        files = [[new[r].file] if r in new else [] for r in range(self.schedule.devices)]
        arguments = []
        for r, (one, (feed, _)) in enumerate(zip(given, feeds, strict=True)):
            flags = None if one.flags == self._flags.get(r) else one.flags
            arguments.append((self._key, what, more, replace(one, feed=feed, flags=flags)))
        try:
            length = 0 if what == "record_drain" else batch_size(inputs, targets)
            begun, self._limit.kind = time.monotonic(), (what, length)
            table, limit = compile_table(table_of(what, self.schedule, self.flown[0])), self._limit.seconds
            replies = self._pool.call("call", arguments, files, unwanted, table=table, limit=limit)
            self._limit.learn(time.monotonic() - begun)
        except BaseException:
            self._feeds.clear()  # no one knows whether it has arrived
            self._flags.clear()
            self._hear_what_is_left()
            if not self._pool.broken and what in TRAINING:
                for share in self._shares:
                    share.take_back(None, parameters=True)  # an update may have gone through before something failed
            raise
        self._feeds |= new
        self._flags = {r: one.flags for r, one in enumerate(given) if one.flags is not None}
        value = replies[0][0][0]
        for share, ((_, grads, _), _) in zip(self._shares, replies, strict=True):
            share.take_back(grads if what in TRAINING else None, parameters=what in TRAINING)
        for (_, _, outputs), opened in replies:
            if outputs is not None:
                data, specs = outputs
                value = replace(value, outputs=unpack_with_tensors(data, specs, opened[0]))
        if what == "record_step":
            self.step_number += 1
        if what in TRAINING:
            self.flown = (0 if what == "record_drain" else self.flown[0] + 1, self.flown[1])
        return value

    def _hear_what_is_left(self) -> None:
        """Under way, after an error; nothing where the ranks are gone."""
        try:
            self.flown = self._pool.call("flown", [self._key] * self.schedule.devices, limit=self._patience)[0][0]
        except PipelabError:
            self.flown = (0, self.flown[1] + (self.under_way > 0))

    def _given(self, r: int) -> Given:
        kinds = sorted({"cpu", *(place.type for place in self.places)})
        return Given.of_caller(self.step_number, self.settings, kinds, self._flags_on(r))

    def _flags_on(self, r: int) -> Flags:
        """What is frozen, and what is in training mode, on device r."""
        takes = tuple([parameter.requires_grad for parameter in self._shares[r].parameters])
        if self._stages is None:
            return takes, ()
        modes = tuple([module.training for module in self._modules[r].all()])
        if len(modes) != self._counts[r]:
            raise ConfigurationError(
                f"the model's modules have changed since this Pipeline was made: device {r} had {self._counts[r]}, now "
                f"{len(modes)}; make a new Pipeline"
            )
        return takes, modes

    def _feed(self, r: int, inputs: Any, targets: Any) -> tuple[Feed | None, Block | None]:
        """(what to tell rank r about its inputs and targets, the memory that they are in)."""
        stages = self.schedule.stages_on(r)
        last = self.schedule.stages - 1 in stages
        return batch_in_block(inputs if 0 in stages else None, targets if last else None, self._feeds.get(r))
