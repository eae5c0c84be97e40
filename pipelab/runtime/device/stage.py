"""One stage on one device: what each op does with real tensors.

Per micro-batch it keeps the input (a leaf of its own graph), the edges of the graph at the output, and nothing else:
the output itself goes with the message.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from pipelab.errors import ConfigurationError, PipelabError
from pipelab.models.cut import call_with_buffers, takes_several
from pipelab.models.dropout import set_dropout_key
from pipelab.runtime.device.caller_settings import CallerSettings
from pipelab.runtime.device.memory import NOTHING_COUNTED, MemoryMeter, NothingCounted, SavedTensors
from pipelab.runtime.device.payload import Payload, describe, flatten, placed, version_of
from pipelab.runtime.device.redraws import NoRedraw
from pipelab.runtime.device.split import Rest, SplitBackward
from pipelab.runtime.device.strangers import Strangers
from pipelab.runtime.device.versions import Versions

__all__ = ["StageRunner", "StageStep", "Task"]


@dataclass(slots=True)
class Task:
    """What the last stage does with a micro-batch: its targets, and the weight of its mean loss in the batch's.

    ``seed`` is what its backward starts from, where that is not its weight.
    """

    targets: Any
    factor: float
    seed: float | None = None


@dataclass(slots=True)
class StageStep:
    """What a stage is told of a step.

    ``key``: the seed and number that key its dropout. ``inputs`` are for stage 0, ``tasks`` for the last stage.
    ``scale`` is what the loss is multiplied with for the backward.
    """

    key: tuple[int, int]
    first_sequences: Sequence[int]
    caller: CallerSettings
    inputs: Sequence[Payload] | None = None
    tasks: Sequence[Task] | None = None
    scale: float = 1.0


_OVER = StageStep((0, 0), (), CallerSettings(()))


@dataclass(slots=True)
class _Kept:
    """What a stage keeps of one micro-batch between its forward and its backward."""

    inputs: tuple[Tensor, ...]
    single: bool
    takes_gradient: tuple[bool, ...]
    edges: tuple[GradientEdge | None, ...] = ()
    held: list[Any] = field(default_factory=list)
    saved: SavedTensors | NothingCounted = NOTHING_COUNTED
    rest: Rest | None = None
    seed: Tensor | None = None
    key: tuple[int, int, int] = (0, 0, 0)
    version: int = 0

    @property
    def takers(self) -> list[Tensor]:
        """The inputs that take a gradient."""
        return [x for x, takes in zip(self.inputs, self.takes_gradient, strict=True) if takes]


class StageRunner:
    """Runs the ops of one stage, step after step. ``recomputed`` are micro-batches with an R.

    ``loss`` is what the last stage of a training or a scored evaluation ends in. ``shares_generator``: other devices
    draw from the same random generator meanwhile. ``in_place``: the stages that have been seen to work in place on
    their input. ``splits``: backwards come in halves, I and W.
    """

    def __init__(
        self,
        index: int,
        module: nn.Module,
        place: torch.device,
        meter: MemoryMeter,
        *,
        loss: Callable[[Any, Any], Tensor] | None,
        recomputed: Container[int],
        training: bool,
        in_place: set[int],
        splits: bool = False,
        keep_outputs: bool = False,
        shares_generator: bool = False,
    ) -> None:
        self.index, self.module, self.place, self.meter = index, module, place, meter
        self.loss, self.recomputed, self.training = loss, recomputed, training
        self.keep_outputs, self.in_place, self.splits = keep_outputs, in_place, splits
        self.acts: dict[str, Callable[[int, Payload | None], Payload | None]] = {
            "F": self.forward,
            "R": self.run_recompute,
            "B": self.backward,
            "I": self.backward_input,
            "W": self.backward_weight,
            "U": self.update,
        }
        """What runs each op: of a micro-batch's number and the message for it, to the message that it makes."""
        # Whether a forward was seen to leave its input as it was: then it gets no copy, which is checked each time.
        self._leaves_inputs_alone = False
        self._modes = [False]
        self._backward_may_not_draw: Any = nullcontext()
        if shares_generator:
            self._backward_may_not_draw = NoRedraw(f"the backward of stage {index}", graphs_only=True)
        self._split = SplitBackward(f"stage {index}")
        self._strangers = Strangers(index, module)
        self._empty: dict[Any, Tensor] = {}
        self._kept: dict[int, _Kept] = {}
        self.versions: Versions | None = None
        """Where weights change on the way; ``ages`` then say how far behind the newest a forward's version is."""
        self.ages: dict[int, int] = {}
        self.behind: dict[int, int] = {}  # of forwards behind an update, where those of all are not to be waited for

    def begin(self, step: StageStep) -> None:
        """A step begins."""
        self.step = step
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        modes = [module.training for module in self.module.modules()]
        if modes != self._modes:  # a layer may work in place in one mode, and not in the other
            self._leaves_inputs_alone, self._modes = False, modes
        self._autocast = step.caller.autocast if step.caller.casts else nullcontext
        self.losses: dict[int, tuple[Tensor, float]] = {}
        """The loss of each micro-batch, and its weight."""
        self.outputs: dict[int, tuple[tuple[Tensor, ...], bool]] = {}
        if self.versions is not None:
            self.versions.begin()
            self._strangers.begin()
        else:
            self._kept = {}

    # ---- the ops -------------------------------------------------------------------------------------------------

    def forward(self, i: int, payload: Payload | None) -> Payload | None:
        """F: run micro-batch ``i`` and return what the next stage gets; on stage 0 of the caller's inputs."""
        if payload is None:
            assert self.step.inputs is not None
            payload = self.step.inputs[i].copy_to(self.place)
        inputs, recompute = payload.tensors, i in self.recomputed
        takes = payload.takes_gradient if self.training else (False,) * len(inputs)
        for x, takes_gradient in zip(inputs, takes, strict=True):
            if takes_gradient:
                x.requires_grad_()
        kept = _Kept(inputs, payload.single, takes, key=(*self.step.key, self.step.first_sequences[i]))
        if self.versions is not None:
            kept.version = self.versions.newest - self.ages[i]
        if self.meter.enabled and (recompute or not all(takes)):
            kept.held = self.meter.hold([x for x in inputs if recompute or not x.requires_grad])
        build_graph = self.training and not recompute
        if self.training:
            self._kept[i] = kept
        outputs, single = self._run(i, kept, build_graph=build_graph, keep=recompute, buffers=None)
        if self.keep_outputs:
            self.outputs[i] = (outputs, single)
        if build_graph:
            gives = tuple([output.requires_grad for output in outputs])
        else:  # a graph comes with R: what could take a gradient will
            gives = tuple([output.is_floating_point() or output.is_complex() for output in outputs])
        return Payload(tuple([output.detach() for output in outputs]), single, gives)

    def run_recompute(self, i: int, _: Payload | None) -> None:
        """R: the forward again from the kept input, this time with autograd; buffers move only once, in F."""
        buffers = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        kept = self._kept[i]
        kept.held = self.meter.hold([x for x in kept.inputs if not x.requires_grad])
        with NoRedraw(f"recomputing stage {self.index} (R)"):
            self._run(i, kept, build_graph=True, keep=False, buffers=buffers)

    def backward(self, i: int, gradient: Payload | None) -> Payload:
        """B: gradients of weights and input at once; returns the message to the stage before."""
        kept = self._kept.pop(i)
        edges, grads = self._seeds(kept, gradient)
        if edges:
            self._resume(kept)
            with self._backward_may_not_draw:
                run_backward(edges, grads)
        kept.saved.close()
        takers = kept.takers
        return self._gradients(kept, takers, [x.grad for x in takers])

    def backward_input(self, i: int, gradient: Payload | None) -> Payload:
        """I: the gradient of the input alone."""
        kept = self._kept[i]
        edges, grads = self._seeds(kept, gradient)
        takers = kept.takers
        self._resume(kept)
        with self._backward_may_not_draw:
            found, kept.rest = self._split.input_gradients(edges, grads, takers, self.meter)
        kept.saved.settle()
        kept.held += self.meter.hold(kept.rest.gradients)
        made = self._gradients(kept, takers, found)
        kept.inputs = ()
        return made

    def backward_weight(self, i: int, gradient: Payload | None) -> None:
        """W: the gradients of the weights, from where I left off (or, on stage 0 without I, from the gradient)."""
        kept = self._kept.pop(i)
        self._resume(kept)
        with self._backward_may_not_draw:
            if kept.rest is not None:
                kept.rest.run()
            else:
                edges, grads = self._seeds(kept, gradient)
                if edges:
                    run_backward(edges, grads)
        kept.saved.close()

    def update(self, i: int, _: Payload | None) -> None:
        """U: step this stage's optimizer on the gradients that have come since its last update."""
        assert self.versions is not None
        self.versions.update({kept.version for kept in self._kept.values()}, self.behind.get(i))

    @property
    def kept(self) -> set[int]:
        """The micro-batches of which something is kept."""
        return set(self._kept)

    def drop(self) -> None:
        """Let go of everything kept of the step: it is over, or has failed."""
        graphs = [kept.saved for kept in self._kept.values()]
        self._kept, self.losses, self.outputs = {}, {}, {}
        for saved in graphs:
            saved.close()
        self.step = _OVER

    def gradients(self) -> Iterator[tuple[str, Tensor]]:
        """(name in this stage, gradient) of each parameter that has one now, in whichever version."""
        if self.versions is not None:
            yield from self.versions.gradients()
        else:
            yield from ((name, p.grad) for name, p in self.module.named_parameters() if p.grad is not None)

    def pause(self, moved: int) -> None:
        """The step is over, and micro-batches are on their way: in the next their numbers are ``moved`` less."""
        self._kept = {i - moved: kept for i, kept in self._kept.items()}
        self.losses, self.outputs, self.step = {}, {}, _OVER

    # ---- underneath ----------------------------------------------------------------------------------------------

    def _resume(self, kept: _Kept) -> None:
        """Masks and weights are this micro-batch's: a backward, too, may run parts of a forward (a checkpoint)."""
        set_dropout_key(*kept.key)
        if self.versions is not None:
            self.versions.use(kept.version)
        kept.saved.check()

    def _run(
        self, i: int, kept: _Kept, *, build_graph: bool, keep: bool, buffers: dict[str, Tensor] | None
    ) -> tuple[tuple[Tensor, ...], bool]:
        """The stage's forward, and on the last stage the loss. ``keep``: the input is needed once more after it."""
        self._resume(kept)
        if build_graph:
            kept.saved = self.meter.saving(boxed=self.splits)
        with kept.saved if build_graph else torch.no_grad(), self._autocast():
            value = self._call(kept, keep=keep, buffers=buffers)
            outputs, single = flatten(value, f"the output of stage {self.index}")
            result = outputs
            if self.loss is not None and self.step.tasks is not None:
                loss = self._score(i, value, outputs, kept)
                result = (loss,)
                if buffers is None:
                    self.losses[i] = (loss.detach(), self.step.tasks[i].factor)
                if build_graph and not loss.requires_grad:
                    raise ConfigurationError("the loss does not depend on any parameter: was it detached on the way?")
        if build_graph:
            kept.edges = tuple([get_gradient_edge(t) if t.requires_grad else None for t in result])
            self._strangers.look(kept.edges, self.versions)
        return outputs, single

    def _call(self, kept: _Kept, *, keep: bool, buffers: dict[str, Tensor] | None) -> Any:
        """The module's forward on the input, or on a copy of it where the module works in place on it."""
        inputs, copied = kept.inputs, not self._leaves_inputs_alone
        if copied:
            given = tuple([x.clone() if keep or x.requires_grad else x for x in inputs])
        else:  # a view, so that what the graph does not need of it can be let go
            given = tuple([x.view_as(x) if x.requires_grad and not keep else x for x in inputs])
        before = version_of(given)
        argument = given[0] if kept.single else given
        try:
            if buffers:
                # The module runs on copies of its buffers, so that running statistics are not updated twice.
                value = call_with_buffers(self.module, buffers, argument)
            elif not kept.single and takes_several(self.module):
                value = self.module(*given)
            else:
                value = self.module(argument)
        except RuntimeError as error:
            if copied or "a leaf Variable that requires grad" not in str(error):
                raise
            raise self._works_in_place() from error
        if version_of(given) == before:
            self._leaves_inputs_alone = self.index not in self.in_place
        elif not copied:
            raise self._works_in_place()
        else:
            self.in_place.add(self.index)
        if not keep:
            for x in inputs:
                if x.requires_grad:
                    x.data = self._emptied(x)
        return value

    def _works_in_place(self) -> PipelabError:
        self._leaves_inputs_alone = False
        self.in_place.add(self.index)
        return PipelabError(
            f"stage {self.index} has changed its input in place, which it did not do before: run the step again, from "
            "now on it gets a copy"
        )

    def _emptied(self, x: Tensor) -> Tensor:
        """What stands for ``x`` where no one reads its data again: of its shape, and without memory."""
        key = (x.shape, x.stride(), x.dtype)
        if key not in self._empty:
            self._empty.clear()
            made = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
            made.untyped_storage().resize_(0)
            self._empty[key] = made
        return self._empty[key]

    def _score(self, i: int, value: Any, outputs: tuple[Tensor, ...], kept: _Kept) -> Tensor:
        """The loss of micro-batch ``i``; the backward starts from its weight in the batch's."""
        assert self.loss is not None and self.step.tasks is not None
        task = self.step.tasks[i]
        if task.factor:
            loss = self.loss(value, placed(task.targets, outputs[0].device))
            _require_scalar(loss)
        else:  # all its targets are ignored: the mean over no terms would be nan
            loss = torch.stack([output.sum() * 0 for output in outputs if output.is_floating_point()]).sum()
        if self.training:
            seed = task.factor if task.seed is None else task.seed
            kept.seed = torch.full_like(loss, seed * self.step.scale)
        return loss

    def _seeds(self, kept: _Kept, gradient: Payload | None) -> tuple[list[GradientEdge], list[Tensor]]:
        """Where the backward starts, and with what: the loss's weight, elsewhere the gradients that came."""
        given: Sequence[Tensor | None]
        if gradient is None:
            given = (kept.seed,)
        else:  # the message holds only the gradients there are
            rest = iter(gradient.tensors)
            given = [next(rest) if takes else None for takes in gradient.takes_gradient]
        edges, grads = [], []
        for edge, grad in zip(kept.edges, given, strict=True):
            if edge is not None and grad is not None:
                edges.append(edge)
                grads.append(grad)
        kept.edges = ()
        return edges, grads

    def _gradients(self, kept: _Kept, takers: Sequence[Tensor], grads: Sequence[Tensor | None]) -> Payload:
        """The message to the stage before: one gradient per input that takes one, zeros where it was not used."""
        found = [torch.zeros_like(x) if grad is None else grad for x, grad in zip(takers, grads, strict=True)]
        return Payload(tuple(found), False, kept.takes_gradient)


def _run_backward(edges: Sequence[GradientEdge], grads: Sequence[Tensor]) -> None:
    """torch.autograd.backward without its checks of arguments, which take as long as a small stage's backward."""
    _engine_run_backward(tuple(edges), tuple(grads), False, False, (), allow_unreachable=True, accumulate_grad=True)


try:
    from torch.autograd.graph import _engine_run_backward

    run_backward: Callable[[Sequence[GradientEdge], Sequence[Tensor]], None] = _run_backward
except ImportError:  # another torch
    run_backward = torch.autograd.backward


def _require_scalar(loss: Any) -> None:
    if not isinstance(loss, Tensor):
        raise ConfigurationError(f"the loss must return a scalar tensor, got {type(loss).__name__}")
    if loss.numel() != 1:
        raise ConfigurationError(
            f"the loss must be a scalar, got {describe([loss])}; reduce it, for example with .mean()"
        )
