"""A pipeline in processes that this one has started, seen from here.

The caller's model is trained in place: before a call its weights are copied to memory that each rank shares with this
process, and after it the new weights and gradients are copied back. Gradients, weights, frozen parameters and
train() / eval() travel at each call; other changes to the model do not.
"""

from __future__ import annotations

import itertools
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.errors import ConfigurationError, PipelabError
from pipelab.runtime.assembly import make_stages
from pipelab.runtime.devices import DeviceChoice, choose_devices
from pipelab.runtime.microbatches import batch_size, make_inputs
from pipelab.runtime.named import Named
from pipelab.runtime.payload import flatten
from pipelab.runtime.probe import FitCheck
from pipelab.runtime.processes.block import Block, specs_of, unpack_with_tensors
from pipelab.runtime.processes.carry import pack
from pipelab.runtime.processes.pool import Pool, lease, release, shielded
from pipelab.runtime.processes.rank import Given, Skeleton, Table, Task, tensors_of
from pipelab.runtime.report import StepReport
from pipelab.runtime.settings import Settings
from pipelab.simulation.costs import Costs

__all__ = ["RemoteEngine"]

_keys = itertools.count()


class RemoteEngine(Named):
    """Speaks for the engines of all ranks."""

    rank = 0

    def __init__(self, settings: Settings, model: Any, cuts: Sequence[int] | None, device: DeviceChoice) -> None:
        self.settings, self.schedule = settings, settings.schedule
        self.places = choose_devices(device, self.schedule.devices)
        self.step_number = 0
        self._key = next(_keys)
        self._running = threading.Lock()
        self._feeds: dict[int, Block] = {}
        here = range(self.schedule.stages)
        self._stages: dict[int, nn.Module] | None = None
        if isinstance(model, nn.Module) or not callable(model) or isinstance(model, type):
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
            told = shielded(lambda _: self._start(tasks, blocks))
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
        """By name, in the order of the unsplit model's stages. Of a stage that lives twice the first home counts."""
        seen: set[str] = set()
        for share in self._shares:
            for name, place in pick(share.table):
                if name not in seen:
                    seen.add(name)
                    yield name, share.tensors[place]

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
        if self._stages is None:
            build = pack(model, "build_stage")
            return [Task(settings, places, seed, build=build) for _ in self.places], [None for _ in self.places]
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
            tasks.append(Task(settings, places, seed, skeletons, block.specs))
        return tasks, blocks

    def _start(self, tasks: Sequence[Task], blocks: Sequence[Block | None]) -> dict[str, type[Warning]]:
        """Open the pipeline on all ranks and lay out what is shared with each; returns the warnings heard there."""
        self._pool = lease(self.schedule.devices)
        self._finalizer = weakref.finalize(self, _forget, self._pool, self._key)
        self._finalizer.atexit = False  # the pools have their own
        files = [[] if block is None else [block.file] for block in blocks]
        replies = self._pool.call("open", [(self._key, task) for task in tasks], files)
        grads = self._pool.call("grads", [self._key] * self.schedule.devices)
        told: dict[str, type[Warning]] = {}
        for r, ((table, specs, caught), given) in enumerate(replies):
            told |= dict(caught)
            block = blocks[r] or Block(specs, given[0])
            grad_specs, grad_files = grads[r]
            grad_block = Block(grad_specs, grad_files[0])
            own = self._tensors_on(r) if self._stages is not None else _as_parameters(table, block.tensors)
            self._shares.append(_Share(table, block, grad_block, own))
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
        feeds = [self._feed(r, inputs, targets) for r in range(self.schedule.devices)]
        arguments = [(self._key, what, more, self._given(r, feed)) for r, (feed, _) in enumerate(feeds)]
        return shielded(lambda unwanted: self._exchange(what, arguments, [files for _, files in feeds], unwanted))

    def _exchange(self, what: str, arguments: list[Any], files: list[list[int]], unwanted: threading.Event) -> Any:
        """Weights out, the call, weights and gradients back."""
        for share in self._shares:
            share.fill()
        replies = self._pool.call("call", arguments, files, unwanted)
        value = replies[0][0][0]
        for share, ((_, grads, _), _) in reversed(list(zip(self._shares, replies, strict=True))):
            share.take_back(grads if what == "step" else None)  # of a stage that lives twice the first home counts
        for (_, _, outputs), opened in replies:
            if outputs is not None:
                data, specs = outputs
                value = replace(value, outputs=unpack_with_tensors(data, specs, opened[0]))
        if what == "step":
            self.step_number += 1
        return value

    def _given(self, r: int, feed: Any) -> Given:
        mode = torch.get_default_device()
        kinds = sorted({"cpu", *(place.type for place in self.places)})
        on = [(kind, torch.get_autocast_dtype(kind)) for kind in kinds if torch.is_autocast_enabled(kind)]
        return Given(
            number=self.step_number,
            autocast=tuple(on),
            dtype=torch.get_default_dtype(),
            device=mode if mode != torch.device("cpu") else None,
            flags=self._flags(r),
            feed=feed,
        )

    def _flags(self, r: int) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
        """What is frozen, and what is in training mode, on device r."""
        takes = tuple(parameter.requires_grad for parameter in self._shares[r].parameters)
        stages = () if self._stages is None else [self._stages[s] for s in self.schedule.stages_on(r)]
        return takes, tuple(module.training for stage in stages for module in stage.modules())

    def _feed(self, r: int, inputs: Any, targets: Any) -> tuple[Any, list[int]]:
        """(what to tell rank r about its inputs and targets, the memory to pass on if it is new)."""
        stages = self.schedule.stages_on(r)
        x, lone = flatten(inputs, "inputs") if 0 in stages else ((), False)
        last = self.schedule.stages - 1 in stages and targets is not None
        y, lone_target = flatten(targets, "targets") if last else ((), False)
        given = [tensor.detach() for tensor in (*x, *y)]
        if not given:
            return None, []
        block, files = self._feeds.get(r), []
        if block is None or block.specs != specs_of(given):
            block = self._feeds[r] = Block(specs_of(given))
            files = [block.file]
        block.fill(given)
        return (block.specs, len(x), lone, len(y), lone_target), files


@dataclass
class _Share:
    """What is shared with one rank: its stages' tensors, here and in the block, and room for gradients."""

    table: Table
    block: Block
    grads: Block
    tensors: list[Tensor]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters among the tensors."""
        return [t for t, is_one in zip(self.tensors, self.table.parameter, strict=True) if is_one]  # type: ignore[misc]

    def fill(self) -> None:
        """The caller's tensors into the block."""
        for own, shared in zip(self.tensors, self.block.tensors, strict=True):
            if own.data_ptr() != shared.data_ptr():
                shared.copy_(own.detach())

    def take_back(self, grads: Sequence[Any] | None) -> None:
        """New weights and the step's gradients into the caller's tensors."""
        with torch.no_grad():
            for own, shared in zip(self.tensors, self.block.tensors, strict=True):
                if own.data_ptr() != shared.data_ptr():
                    own.copy_(shared)
            if grads is None:
                return
            for parameter, grad, shared in zip(self.parameters, grads, self.grads.tensors, strict=True):
                found = shared.clone() if grad is True else grad
                parameter.grad = None if found is None else found.to(parameter.device)


def _as_parameters(table: Table, shared: Sequence[Tensor]) -> list[Tensor]:
    """Parameters and buffers in the block itself, for stages that only a rank has."""
    told = zip(shared, table.parameter, table.requires_grad, strict=True)
    return [nn.Parameter(tensor, takes) if is_one else tensor for tensor, is_one, takes in told]


def _skeleton(s: int, stage: nn.Module, own: Sequence[Tensor]) -> Skeleton:
    """``stage`` with stand-ins for its tensors, which are in the block."""
    places = {id(tensor): place for place, tensor in enumerate(own)}
    told: list[tuple[int, bool, bool]] = []

    def stand_in(obj: Any) -> int | None:
        if not isinstance(obj, Tensor) or id(obj) not in places:
            return None
        told.append((places[id(obj)], isinstance(obj, nn.Parameter), obj.requires_grad))
        return len(told) - 1

    return Skeleton(s, pack(stage, f"stage {s}", stand_in), tuple(told))


def _first(targets: Any, size: int) -> Any:
    tensors, lone = flatten(targets, "targets")
    return tensors[0][:size] if lone else tuple(tensor[:size] for tensor in tensors)


def _forget(pool: Pool, key: int) -> None:
    """Its owner was not closed, but forgotten: this may be any thread, in the middle of anything."""
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
