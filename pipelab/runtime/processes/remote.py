"""A pipeline in processes that this one has started, seen from here.

The caller's model is trained in place: before a call its weights are copied to memory that each rank shares with this
process, and after it the new weights and gradients are copied back. Gradients, weights, frozen parameters and
train() / eval() travel at each call; other changes to the model do not.
"""

from __future__ import annotations

import itertools
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.errors import ConfigurationError, PipelabError
from pipelab.models.split import SplitModel
from pipelab.runtime.device.payload import describe, flatten
from pipelab.runtime.measuring.microbatch_costs import Survey
from pipelab.runtime.processes.block import Block, specs_of, unpack_with_tensors
from pipelab.runtime.processes.carry import pack
from pipelab.runtime.processes.pool import Pool, lease, release, shielded
from pipelab.runtime.processes.rank import Given, Skeleton, Table, Task, tensors_of
from pipelab.runtime.report import StepReport
from pipelab.runtime.setup.assembly import make_stages
from pipelab.runtime.setup.by_name import Named
from pipelab.runtime.setup.devices import DeviceChoice, choose_devices
from pipelab.runtime.setup.fit import FitCheck
from pipelab.runtime.setup.microbatches import batch_size, make_inputs
from pipelab.runtime.setup.settings import Settings
from pipelab.simulation.costs import Costs

__all__ = ["RemoteEngine"]

_keys = itertools.count()


class RemoteEngine(Named):
    """Speaks for the engines of all ranks."""

    rank = 0
    backend: str

    def __init__(self, settings: Settings, model: Any, cuts: Sequence[int] | None, device: DeviceChoice) -> None:
        self.settings, self.schedule = settings, settings.schedule
        self.places = choose_devices(device, self.schedule.devices)
        self.step_number = 0
        self._key = next(_keys)
        self._running = threading.Lock()
        self._feeds: dict[int, Block] = {}
        self._modules: dict[int, int] = {}
        here = range(self.schedule.stages)
        self._stages: dict[int, nn.Module] | None = None
        if isinstance(model, nn.Module | SplitModel) or not callable(model) or isinstance(model, type):
            self._stages = make_stages(model, self.schedule, cuts, here)
            self._fit: FitCheck | None = FitCheck(self._stages, settings.loss)
        else:
            if cuts is not None:
                make_stages(model, self.schedule, cuts, ())
            self._fit = None
        self._shares: list[_Share] = []
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
        report: StepReport = self._call("step", inputs, targets)
        return report

    def evaluate(self, inputs: Any, targets: Any) -> StepReport:
        """Forwards only, in evaluation mode and without gradients."""
        report: StepReport = self._call("evaluate", inputs, targets)
        return report

    def profile(self, inputs: Any, targets: Any, repeats: int) -> Costs:
        """What one micro-batch of weight 1 costs, stage by stage."""
        costs: Costs = self._call("profile", inputs, targets, repeats)
        return costs

    def survey(self, inputs: Any, targets: Any, updates: bool) -> Survey:
        """What one micro-batch costs, of a table of one micro-batch."""
        found: Survey = self._call("survey", inputs, targets, updates)
        return found

    def verify(self, inputs: Any, targets: Any) -> float:
        """The gradient error of a step on this batch."""
        error: float = self._call("verify", inputs, targets)
        return error

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(name in the unsplit model, parameter), stage by stage."""
        yield from ((name, tensor) for name, tensor in self._named(lambda table: table.parameters))  # type: ignore[misc]

    def named_state(self) -> Iterator[tuple[str, Tensor]]:
        """(name in the unsplit model, tensor) of parameters and persistent buffers."""
        yield from self._named(lambda table: table.state)

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """This process has them all."""
        return {name: tensor.detach().cpu() for name, tensor in tensors.items()}

    def _named(self, pick: Callable[[Table], tuple[tuple[str, int], ...]]) -> Iterator[tuple[str, Tensor]]:
        """By name, stage by stage. Of a stage that lives twice the first home counts."""
        found = [
            (share.table.stages[place], name, share.tensors[place])
            for share in self._shares
            for name, place in pick(share.table)
            if share.leads[place]
        ]
        yield from ((name, tensor) for _, name, tensor in sorted(found, key=lambda entry: entry[0]))

    def close(self) -> None:
        """Let go of this pipeline's part of the processes."""
        if self._finalizer is not None and self._finalizer.detach() is not None:
            shielded(lambda _: _let_go(self._pool, self._key))

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
        for s, stage in self._stages.items():
            _refuse_overlaps(s, stage)
            for r in self.schedule.placement[s]:
                self._modules[r] = self._modules.get(r, 0) + sum(1 for _ in stage.modules())
        tasks: list[Task] = []
        blocks: list[Block | None] = []
        for r in range(self.schedule.devices):
            own = self._tensors_on(r)
            try:
                skeletons = tuple(_skeleton(s, self._stages[s], own) for s in self.schedule.stages_on(r))
            except ConfigurationError:
                pack(model, "model", lambda obj: 0 if isinstance(obj, Tensor) else None)  # names it as the user does
                raise
            block = Block.holding(own)
            blocks.append(block)
            tasks.append(Task(settings, places, seed, path, skeletons, block.specs))
        return tasks, blocks

    def _start(
        self, tasks: Sequence[Task], blocks: Sequence[Block | None], unwanted: threading.Event
    ) -> dict[str, type[Warning]]:
        """Open the pipeline on all ranks and lay out what is shared with each; returns the warnings heard there."""
        self._pool = lease(self.schedule.devices)
        self._finalizer = weakref.finalize(self, _forget, self._pool, self._key)
        self._finalizer.atexit = False  # the pools have their own
        files = [[] if block is None else [block.file] for block in blocks]
        replies = self._pool.call("open", [(self._key, task) for task in tasks], files, unwanted)
        grads = self._pool.call("grads", [self._key] * self.schedule.devices)
        told: dict[str, type[Warning]] = {}
        for r, ((table, self.backend, specs, caught), given) in enumerate(replies):
            told |= dict(caught)
            block = blocks[r] or Block(specs, given[0])
            grad_specs, grad_files = grads[r]
            grad_block = Block(grad_specs, grad_files[0])
            own = self._tensors_on(r) if self._stages is not None else _as_parameters(table, block.tensors)
            leads = [self.schedule.placement[s][0] == r for s in table.stages]
            self._shares.append(_Share(table, block, grad_block, own, leads))
        return told

    def _tensors_on(self, r: int) -> list[Tensor]:
        """The caller's tensors of the stages on device r, in the block's order."""
        assert self._stages is not None
        return [tensor for s in self.schedule.stages_on(r) for tensor in tensors_of(self._stages[s])]

    # ---- one call ------------------------------------------------------------------------------------------------

    def _call(self, what: str, inputs: Any, targets: Any, *more: Any) -> Any:
        if not self._running.acquire(blocking=False):
            raise PipelabError("this Pipeline is running a step in another thread; wait for it, or make a second one")
        try:
            if self._finalizer is None or not self._finalizer.alive:
                raise PipelabError("this Pipeline is closed; make a new one")
            return self._call_alone(what, inputs, targets, more)
        finally:
            self._running.release()

    def _call_alone(self, what: str, inputs: Any, targets: Any, more: tuple[Any, ...]) -> Any:
        length = batch_size(inputs, targets)
        sizes = self.schedule.microbatch_sizes(length)
        if self._fit is not None:
            first = None if targets is None else _first(targets, sizes[0])
            self._fit.check(make_inputs(inputs, sizes)[0], first)
        given = [self._given(r) for r in range(self.schedule.devices)]
        return shielded(lambda unwanted: self._exchange(what, inputs, targets, more, given, unwanted))

    def _exchange(
        self, what: str, inputs: Any, targets: Any, more: Any, given: list[Given], unwanted: threading.Event
    ) -> Any:
        """Batch and weights out, the call, weights and gradients back."""
        feeds = [self._feed(r, inputs, targets) for r in range(self.schedule.devices)]
        for share in self._shares:
            share.fill()
        arguments = [
            (self._key, what, more, replace(one, feed=feed)) for one, (feed, _) in zip(given, feeds, strict=True)
        ]
        new = {r: block for r, (_, block) in enumerate(feeds) if block is not None and block is not self._feeds.get(r)}
        files = [[new[r].file] if r in new else [] for r in range(self.schedule.devices)]
        try:
            replies = self._pool.call("call", arguments, files, unwanted)
        except BaseException:
            self._feeds.clear()  # no one knows whether it has arrived
            if not self._pool.broken and what == "step":
                for share in self._shares:
                    share.take_back(None, parameters=True)  # an update may have gone through before something failed
            raise
        self._feeds |= new
        value = replies[0][0][0]
        for share, ((_, grads, _), _) in zip(self._shares, replies, strict=True):
            share.take_back(grads if what == "step" else None, parameters=what == "step")
        for (_, _, outputs), opened in replies:
            if outputs is not None:
                data, specs = outputs
                value = replace(value, outputs=unpack_with_tensors(data, specs, opened[0]))
        if what == "step":
            self.step_number += 1
        return value

    def _given(self, r: int) -> Given:
        mode = torch.get_default_device()
        kinds = sorted({"cpu", *(place.type for place in self.places)})
        on = [(kind, torch.get_autocast_dtype(kind)) for kind in kinds if torch.is_autocast_enabled(kind)]
        return Given(
            number=self.step_number,
            autocast=tuple(on),
            dtype=torch.get_default_dtype(),
            device=mode if mode != torch.device("cpu") else None,
            flags=self._flags(r),
            feed=None,
        )

    def _flags(self, r: int) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
        """What is frozen, and what is in training mode, on device r."""
        takes = tuple(parameter.requires_grad for parameter in self._shares[r].parameters)
        stages = () if self._stages is None else [self._stages[s] for s in self.schedule.stages_on(r)]
        modes = tuple(module.training for stage in stages for module in stage.modules())
        before = self._modules.get(r, 0)
        if len(modes) != before:
            raise ConfigurationError(
                f"the model's modules have changed since this Pipeline was made: device {r} had {before}, now "
                f"{len(modes)}; make a new Pipeline"
            )
        return takes, modes

    def _feed(self, r: int, inputs: Any, targets: Any) -> tuple[Any, Block | None]:
        """(what to tell rank r about its inputs and targets, the memory that they are in)."""
        stages = self.schedule.stages_on(r)
        x, lone = flatten(inputs, "inputs") if 0 in stages else ((), False)
        last = self.schedule.stages - 1 in stages and targets is not None
        y, lone_target = flatten(targets, "targets") if last else ((), False)
        given = [tensor.detach() for tensor in (*x, *y)]
        if not given:
            return None, None
        block = self._feeds.get(r)
        if block is None or block.specs != specs_of(given):
            block = Block(specs_of(given))
        block.fill(given)
        return (block.specs, len(x), lone, len(y), lone_target), block


@dataclass
class _Share:
    """What is shared with one rank: its stages' tensors, here and in the block, and room for gradients."""

    table: Table
    block: Block
    grads: Block
    tensors: list[Tensor]
    leads: list[bool]
    """Whether this is the first home of a tensor's stage: what it holds counts."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters among the tensors."""
        return [t for t, is_one in zip(self.tensors, self.table.parameter, strict=True) if is_one]  # type: ignore[misc]

    def fill(self) -> None:
        """The caller's tensors into the block."""
        for own, shared in zip(self.tensors, self.block.tensors, strict=True):
            if own.shape != shared.shape or own.dtype != shared.dtype:
                raise ConfigurationError(
                    f"the model has changed since this Pipeline was made: {describe([shared])} is now "
                    f"{describe([own])}; make a new Pipeline"
                )
        for own, shared in zip(self.tensors, self.block.tensors, strict=True):
            if own.data_ptr() != shared.data_ptr():
                shared.copy_(own.detach())

    def take_back(self, grads: Sequence[Any] | None, *, parameters: bool) -> None:
        """Buffers that have changed and, after a step, new weights and gradients into the caller's tensors."""
        with torch.no_grad():
            for own, shared, is_one, leads in zip(
                self.tensors, self.block.tensors, self.table.parameter, self.leads, strict=True
            ):
                if own.data_ptr() == shared.data_ptr() or not leads:
                    continue
                if parameters if is_one else not torch.equal(own.cpu(), shared):
                    own.copy_(shared)
            if grads is None:
                return
            leading = [leads for leads, is_one in zip(self.leads, self.table.parameter, strict=True) if is_one]
            for parameter, grad, shared, leads in zip(self.parameters, grads, self.grads.tensors, leading, strict=True):
                if leads:
                    found = shared.clone() if grad is True else grad
                    parameter.grad = None if found is None else found.to(parameter.device)


def _as_parameters(table: Table, shared: Sequence[Tensor]) -> list[Tensor]:
    """Parameters and buffers in the block itself, for stages that only a rank has."""
    told = zip(shared, table.parameter, table.requires_grad, strict=True)
    return [nn.Parameter(tensor, takes) if is_one else tensor for tensor, is_one, takes in told]


def _skeleton(s: int, stage: nn.Module, own: Sequence[Tensor]) -> Skeleton:
    """``stage`` with stand-ins for its tensors, which are in the block."""
    places = {id(tensor): place for place, tensor in enumerate(own)}
    told: list[tuple[int, bool, bool, bytes | None]] = []

    def stand_in(obj: Any) -> int | None:
        if not isinstance(obj, Tensor) or id(obj) not in places:
            return None
        more = pack(vars(obj), f"what hangs on a parameter of stage {s}") if vars(obj) else None
        told.append((places[id(obj)], isinstance(obj, nn.Parameter), obj.requires_grad, more))
        return len(told) - 1

    return Skeleton(s, pack(stage, f"stage {s}", stand_in), tuple(told))


def _first(targets: Any, size: int) -> Any:
    tensors, lone = flatten(targets, "targets")
    return tensors[0][:size] if lone else tuple(tensor[:size] for tensor in tensors)


def _refuse_overlaps(s: int, stage: nn.Module) -> None:
    """Raise ConfigurationError if two of a stage's tensors share memory: in another process they would be two."""
    named = [(name, t) for name, t in (*stage.named_parameters(), *stage.named_buffers()) if t.numel()]
    spans = sorted((t.data_ptr(), t.data_ptr() + _extent(t), name) for name, t in named if t.layout == torch.strided)
    for (_, end, one), (start, _, other) in pairwise(spans):
        if start < end:
            raise ConfigurationError(
                f"'{other}' and '{one}' of stage {s} share memory, and in another process they would not; make one a "
                "copy (.clone()), or use launch='threads'"
            )


def _extent(tensor: Tensor) -> int:
    """Bytes from the first to the last element."""
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (reach + 1) * tensor.element_size()


def _forget(pool: Pool, key: int) -> None:
    """Its owner was not closed, but forgotten: this may be any thread, in the middle of anything."""
    if pool.is_mine():
        threading.Thread(target=_let_go, args=(pool, key), daemon=True).start()


def _let_go(pool: Pool, key: int) -> None:
    """Close a pipeline's part of the ranks."""
    try:
        if not pool.broken:
            pool.call("close", [key] * pool.size)
    except PipelabError:
        pass
    finally:
        release(pool)
