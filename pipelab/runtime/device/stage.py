"""One stage on one device: what each op does with real tensors.

Per micro-batch it keeps the input (a leaf of its own graph), the edges of the graph at the output, and nothing else:
the output itself goes with the message.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from pipelab.errors import ConfigurationError
from pipelab.models.cut import call_layer
from pipelab.models.dropout import dropout_key
from pipelab.runtime.device.caller_settings import CallerSettings
from pipelab.runtime.device.memory import MemoryMeter
from pipelab.runtime.device.payload import Payload, describe, flatten
from pipelab.runtime.device.redraws import NoRedraw
from pipelab.runtime.device.strangers import refuse_strangers
from pipelab.schedules.action import Action

__all__ = ["StageRunner", "Task"]


@dataclass(slots=True)
class Task:
    """What the last stage does with a micro-batch: its targets, and the weight of its mean loss in the batch's."""

    targets: Any
    factor: float


@dataclass(slots=True)
class _Kept:
    """What a stage keeps of one micro-batch between its forward and its backward."""

    inputs: tuple[Tensor, ...]
    single: bool
    edges: tuple[GradientEdge | None, ...] = ()
    held: list[Any] = field(default_factory=list)
    seeds: tuple[list[GradientEdge], list[Tensor]] | None = None
    one: Tensor | None = None

    def arguments(self, *, keep: bool) -> Any:
        """What the module gets: copies, so that a layer that works in place spoils neither leaf nor kept input.

        Without ``keep`` nobody reads a leaf's own data again, and its memory is let go.
        """
        given = tuple(x.clone() if keep or x.requires_grad else x for x in self.inputs)
        if not keep:
            for x in self.inputs:
                if x.requires_grad:
                    x.untyped_storage().resize_(0)
        return given[0] if self.single else given


class StageRunner:
    """Runs the ops of one stage. ``loss`` is set on the last stage only; ``recomputed`` are micro-batches with an R.

    ``scale`` is what the loss is multiplied with for the backward. ``looks``: its first graph is looked through for
    parameters that are not its own. ``shares_generator``: other devices draw from the same random generator meanwhile.
    """

    def __init__(
        self,
        index: int,
        module: nn.Module,
        meter: MemoryMeter,
        caller: CallerSettings,
        *,
        loss: Callable[[Any, Any], Tensor] | None,
        recomputed: Container[int],
        training: bool,
        key: tuple[int, int],
        first_sequences: Sequence[int],
        keep_outputs: bool = False,
        scale: float = 1.0,
        looks: bool = False,
        shares_generator: bool = False,
    ) -> None:
        self.index, self.module, self.meter, self.caller = index, module, meter, caller
        self.loss, self.recomputed, self.training = loss, recomputed, training
        self.key, self.first_sequences, self.keep_outputs, self.scale = key, first_sequences, keep_outputs, scale
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self._looks = looks
        self._backward_may_not_draw: NoRedraw | None = None
        if shares_generator:
            self._backward_may_not_draw = NoRedraw(f"the backward of stage {index}", graphs_only=True)
        self.losses: dict[int, Tensor] = {}
        self.outputs: dict[int, tuple[tuple[Tensor, ...], bool]] = {}
        self._kept: dict[int, _Kept] = {}
        self._tasks: dict[int, Task] = {}

    def forward(self, i: int, payload: Payload, task: Task | None) -> Payload:
        """F: run micro-batch ``i`` and return what the next stage gets (the last stage: its detached output)."""
        takes = payload.takes_gradient if self.training else (False,) * len(payload.tensors)
        inputs = tuple(t.detach().requires_grad_(g) for t, g in zip(payload.tensors, takes, strict=True))
        recompute = i in self.recomputed
        held = self.meter.hold(x for x in inputs if recompute or not x.requires_grad)
        kept = _Kept(inputs, payload.single, held=held)
        build_graph = self.training and not recompute
        outputs, single = self._run(i, kept, task, build_graph=build_graph, buffers=None)
        if self.training:
            self._kept[i] = kept
            if task is not None:
                self._tasks[i] = task
        if self.keep_outputs:
            self.outputs[i] = (outputs, single)
        if build_graph:
            gives = tuple(output.requires_grad for output in outputs)
        else:  # a graph comes with R: what could take a gradient will
            gives = tuple(output.is_floating_point() or output.is_complex() for output in outputs)
        return Payload(tuple(output.detach() for output in outputs), single, gives, Action(self.index, "F", i))

    def run_recompute(self, i: int) -> None:
        """R: the forward again from the kept input, this time with autograd; buffers move only once, in F."""
        buffers = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        kept = self._kept[i]
        kept.held = self.meter.hold(x for x in kept.inputs if not x.requires_grad)
        with NoRedraw(f"recomputing stage {self.index} (R)"):
            self._run(i, kept, self._tasks.get(i), build_graph=True, buffers=buffers)

    def backward(self, i: int, gradient: Payload | None) -> Payload:
        """B: gradients of weights and input at once; returns the message to the stage before."""
        kept = self._kept.pop(i)
        edges, grads = self._seeds(kept, gradient)
        if edges:
            with self._redrawing(i):
                torch.autograd.backward(edges, grads)
        return self._gradients(i, kept, [x.grad for x in kept.inputs if x.requires_grad], "B")

    def backward_input(self, i: int, gradient: Payload | None) -> Payload:
        """I: the gradient of the input alone. The graph stays for W."""
        kept = self._kept[i]
        edges, grads = self._seeds(kept, gradient)
        takers = [x for x in kept.inputs if x.requires_grad]
        found: Sequence[Tensor | None] = [None] * len(takers)
        if edges and takers:
            with self._redrawing(i):
                found = torch.autograd.grad(edges, takers, grads, retain_graph=True, allow_unused=True)
        # W walks the same graph from the same seeds: it computes some of the chain a second time.
        kept.seeds = (edges, grads)
        kept.held += self.meter.hold(grads)
        return self._gradients(i, kept, list(found), "I")

    def backward_weight(self, i: int, gradient: Payload | None) -> None:
        """W: the gradients of the weights, from where I left off (or, on stage 0 without I, from the gradient)."""
        kept = self._kept.pop(i)
        edges, grads = kept.seeds if kept.seeds is not None else self._seeds(kept, gradient)
        if edges and self.parameters:
            with self._redrawing(i):
                torch.autograd.backward(edges, grads, inputs=self.parameters)

    def _run(
        self, i: int, kept: _Kept, task: Task | None, *, build_graph: bool, buffers: dict[str, Tensor] | None
    ) -> tuple[tuple[Tensor, ...], bool]:
        """The stage's forward, and on the last stage the loss."""
        key = dropout_key(*self.key, self.first_sequences[i])
        with torch.set_grad_enabled(build_graph), self.caller.autocast(), key, self._hooks(build_graph):
            arguments = kept.arguments(keep=i in self.recomputed and buffers is None)
            if buffers:
                # The module runs on copies of its buffers, so that running statistics are not updated twice.
                value = torch.func.functional_call(_Caller(self.module), _prefixed(buffers), (arguments,))
            else:
                value = call_layer(self.module, arguments)
            outputs, single = flatten(value, f"the output of stage {self.index}")
            result = outputs
            if task is not None and self.loss is not None:
                if task.factor:
                    loss = self.loss(value, _placed(task.targets, outputs[0].device))
                    _require_scalar(loss)
                else:  # all its targets are ignored: the mean over no terms would be nan
                    loss = torch.stack([output.sum() * 0 for output in outputs if output.is_floating_point()]).sum()
                if buffers is None:
                    self.losses[i] = loss.detach() * task.factor
                result = (loss * (task.factor * self.scale),)
                kept.one = torch.ones_like(loss)
                if build_graph and not loss.requires_grad:
                    raise ConfigurationError("the loss does not depend on any parameter: was it detached on the way?")
        if build_graph:
            kept.edges = tuple(get_gradient_edge(t) if t.requires_grad else None for t in result)
            if self._looks:
                self._looks = False
                refuse_strangers(self.index, [edge.node for edge in kept.edges if edge is not None], self.parameters)
        return outputs, single

    @contextmanager
    def _redrawing(self, i: int) -> Iterator[None]:
        """A backward may run parts of the forward again (torch.utils.checkpoint): with the same masks, or not."""
        with dropout_key(*self.key, self.first_sequences[i]), self._backward_may_not_draw or nullcontext():
            yield

    @property
    def kept(self) -> set[int]:
        """The micro-batches of which something is kept."""
        return set(self._kept)

    def drop(self) -> None:
        """Let go of everything kept: the step has failed."""
        self._kept.clear()
        self._tasks.clear()

    def _hooks(self, build_graph: bool) -> Any:
        return self.meter.hooks() if build_graph and self.meter.enabled else nullcontext()

    def _seeds(self, kept: _Kept, gradient: Payload | None) -> tuple[list[GradientEdge], list[Tensor]]:
        """Where the backward starts, and with what: ones at the loss, elsewhere the gradients that came."""
        if gradient is None:
            given: tuple[Tensor | None, ...] = (kept.one,)
        else:  # the message holds only the gradients there are
            rest = iter(gradient.tensors)
            given = tuple(next(rest) if takes else None for takes in gradient.takes_gradient)
        pairs = [(e, g) for e, g in zip(kept.edges, given, strict=True) if e is not None and g is not None]
        kept.edges = ()
        return [edge for edge, _ in pairs], [grad for _, grad in pairs]

    def _gradients(self, i: int, kept: _Kept, grads: Sequence[Tensor | None], op: str) -> Payload:
        """The message to the stage before: one gradient per input that takes one, zeros where it was not used."""
        takers = [x for x in kept.inputs if x.requires_grad]
        found = tuple(
            torch.zeros_like(x) if grad is None else grad.detach() for x, grad in zip(takers, grads, strict=True)
        )
        takes = tuple(x.requires_grad for x in kept.inputs)
        return Payload(found, False, takes, Action(self.index, op, i))


def _placed(targets: Any, device: torch.device) -> Any:
    """Targets where the output is; those made in inference mode as copies that autograd may save."""

    def one(tensor: Tensor) -> Tensor:
        moved = tensor.to(device)
        return moved.clone() if moved.is_inference() else moved

    return one(targets) if isinstance(targets, Tensor) else tuple(map(one, targets))


def _require_scalar(loss: Any) -> None:
    if not isinstance(loss, Tensor):
        raise ConfigurationError(f"the loss must return a scalar tensor, got {type(loss).__name__}")
    if loss.numel() != 1:
        raise ConfigurationError(
            f"the loss must be a scalar, got {describe([loss])}; reduce it, for example with .mean()"
        )


class _Caller(nn.Module):
    """Lets functional_call run a module the way a stage runs it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Any) -> Any:
        return call_layer(self.module, x)


def _prefixed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{name}": tensor for name, tensor in tensors.items()}
