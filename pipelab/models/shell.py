"""A model's tree of modules with a part of it taken out: what a stage of a stack is made of.

Each stage runs the model's own ``forward``, so what Python computes on the way (positions, masks) needs no rewriting.
The modules of its layers are the caller's own. Those of other stages are stubs without tensors:

    stage 0   embed  0 1 · ·  head'        the closing layer, 1, ends the run: what it returned goes to stage 1
    stage 1   embed' 0' 1' 2 3  head       until 1' returns what came from stage 0, nothing that is computed counts

What a stub returns, and a parameter that is not here, is full of nan: if any of it counted after all, it would show.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pipelab.errors import ConfigurationError

__all__ = ["Result", "Run", "Shape", "Stub", "Watched", "bare_copy", "copy_of", "in_vain", "running"]


class _Reached(BaseException):  # a model may catch every Exception
    """The last layer of a stage is done: the rest of the model's forward is for others."""


@dataclass(frozen=True)
class Shape:
    """A tensor that a stand-in is made of. ``like`` names per dimension the (tensor, dimension) it follows, if any."""

    sizes: tuple[int, ...]
    dtype: torch.dtype
    like: tuple[tuple[int, int] | None, ...] = ()

    @classmethod
    def of(cls, tensor: Tensor) -> Shape:
        """The shape of ``tensor``."""
        return cls(tuple(tensor.shape), tensor.dtype)

    def following(self, references: Sequence[tuple[int, ...]]) -> Shape:
        """Every dimension that is as long as a reference's at the same place will be as long as that one's again."""
        like = [
            next(
                ((r, d) for r, sizes in enumerate(references) if d < len(sizes) and sizes[d] == size and size > 1), None
            )
            for d, size in enumerate(self.sizes)
        ]
        return Shape(self.sizes, self.dtype, tuple(like))

    def filled(self, references: Sequence[Tensor], device: torch.device) -> Tensor:
        """A tensor of its own, full of nan."""
        like = self.like or (None,) * len(self.sizes)
        sizes = [n if at is None else references[at[0]].shape[at[1]] for n, at in zip(self.sizes, like, strict=True)]
        return torch.full(sizes, _nothing(self.dtype), dtype=self.dtype, device=device)


def _nothing(dtype: torch.dtype) -> float:
    return math.nan if dtype.is_floating_point or dtype.is_complex else 0


@dataclass(frozen=True)
class Result:
    """What a module returned when it was watched: the tensors' shapes, and all else as it was, if it is plain."""

    value: Any

    @classmethod
    def of(cls, value: Any) -> Result:
        """What is seen of ``value``."""
        return cls(pytree.tree_map(_told, value))

    def following(self, references: Sequence[tuple[int, ...]]) -> Result:
        """The same with shapes that follow those of the references."""
        return Result(pytree.tree_map_only(Shape, lambda shape: shape.following(references), self.value))

    @property
    def shapes(self) -> dict[int, Shape]:
        """The tensors, by their place among the leaves."""
        return {k: leaf for k, leaf in enumerate(pytree.tree_leaves(self.value)) if isinstance(leaf, Shape)}

    def made(self, run: Run, given: Mapping[int, Tensor] | None = None) -> Any:
        """The same again, with ``given`` tensors, place by place, and nothing but nan for others."""
        given = given or {}
        leaves, spec = pytree.tree_flatten(self.value)
        for k, leaf in enumerate(leaves):
            if isinstance(leaf, Shape):
                leaves[k] = given[k] if k in given else leaf.filled(run.references, run.device)
        return pytree.tree_unflatten(leaves, spec)


def _told(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return Shape.of(leaf)
    return leaf if isinstance(leaf, bool | int | float | str) else None


@dataclass
class Run:
    """One run of a stage: what came from the stage before, and what its layers return."""

    references: tuple[Tensor, ...]
    """The first tensor that came, and the model's inputs."""
    received: dict[int, dict[int, Tensor]]
    """Layer of an earlier stage -> place -> tensor."""
    first: int
    last: int | None
    """The layer that ends this run; None in the last stage."""
    finished: dict[int, Any] = field(default_factory=dict)
    counts: bool = True
    """False until the tensors that came have been handed on: nothing that is computed before counts."""

    @property
    def device(self) -> torch.device:
        """Where this stage computes."""
        return self.references[0].device

    def layer_done(self, layer: int, value: Any) -> None:
        """Keep what a layer returned, and stop after the last one."""
        self.finished[layer] = value
        if layer == self.last:
            raise _Reached


_run: ContextVar[Run | None] = ContextVar("pipelab_stage_run", default=None)


@contextmanager
def running(run: Run) -> Iterator[None]:
    """This thread runs a stage; ends quietly where the stage ends."""
    token = _run.set(run)
    try:
        yield
    except _Reached:
        pass
    finally:
        _run.reset(token)


def in_vain() -> bool:
    """Whether what is computed now does not count."""
    run = _run.get()
    return run is not None and not run.counts


class Stub(nn.Module):
    """A module that another stage has. It holds no tensor, but tells shapes, types and plain settings.

    ``result``: what it returns (None: it is not called). ``layer``: its number, if it is one of the stack's.
    """

    def __init__(self, original: nn.Module, result: Result | None = None, layer: int | None = None) -> None:
        super().__init__()
        self.result, self.layer, self.original = result, layer, type(original).__name__
        tensors = {**original._parameters, **original._buffers}
        self.absent = {name: Shape.of(tensor) for name, tensor in tensors.items() if tensor is not None}
        own = vars(self)
        plain = {k: v for k, v in vars(original).items() if isinstance(v, bool | int | float | str | None)}
        own.update({k: v for k, v in plain.items() if k not in own})
        for name, child in original._modules.items():
            self._modules[name] = None if child is None else Stub(child)

    def forward(self, *_: Any, **__: Any) -> Any:
        """What stands for this module's answer; what came from the stage before, if it is the layer that gave it."""
        run = _run.get()
        if run is None or self.result is None:
            raise ConfigurationError(f"a stage called a {self.original} that another stage has")
        if self.layer is None:
            return self.result.made(run)
        if self.layer == run.first - 1:
            run.counts = True
        return self.result.made(run, run.received.get(self.layer))

    def __getattr__(self, name: str) -> Any:
        absent = self.__dict__.get("absent", {})
        return _stand_in(absent[name]) if name in absent else super().__getattr__(name)


def _stand_in(shape: Shape) -> Tensor:
    run = _run.get()
    device = None if run is None else run.device
    return torch.full((), _nothing(shape.dtype), dtype=shape.dtype, device=device).expand(shape.sizes)


class _Copy:
    """Comes before a module's class: the same module in another tree, with an entry or two of its own.

    ``training`` stays the original's, as long as both are in one process.
    """

    @property
    def training(self) -> bool:
        original = vars(self).get("_original")
        return bool(vars(self).get("training", True) if original is None else original.training)

    @training.setter
    def training(self, mode: bool) -> None:
        original = vars(self).get("_original")
        if original is not None:
            original.training = mode
        vars(self)["training"] = mode

    def __getattr__(self, name: str) -> Any:
        absent = vars(self).get("_absent", {})
        return _stand_in(absent[name]) if name in absent else super().__getattr__(name)  # type: ignore[misc]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        run, gate, layer = _run.get(), vars(self).get("_gate"), vars(self).get("_layer")
        if run is not None and gate is not None and not run.counts:
            return gate.made(run)
        value = super().__call__(*args, **kwargs)  # type: ignore[misc]
        if run is not None and layer is not None:
            run.layer_done(layer, value)
        return value

    def __reduce_ex__(self, _: Any) -> Any:
        # Neither another process nor a deep copy has the original.
        state = {key: value for key, value in vars(self).items() if key != "_original"}
        state["training"] = self.training
        return _empty, (type(self).__mro__[2],), state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


def _empty(kind: type[nn.Module]) -> nn.Module:
    told = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    metaclass: Any = type(kind)
    made: nn.Module = object.__new__(metaclass(kind.__name__, (_Copy, kind), told))
    return made


def copy_of(module: nn.Module, **own: Any) -> Any:
    """``module`` in another tree: it shares tensors, submodules and hooks, but for what ``own`` says.

    ``_gate``: the Result it gives while nothing counts yet. ``_layer``: its number in the stack. ``_absent``: shapes of
    parameters that are not here.
    """
    made = _empty(type(module))
    vars(made).update(vars(module))
    vars(made).update(own, _original=module)
    return made


def bare_copy(module: nn.Module, **own: Any) -> Any:
    """A copy of a module without parameters, with buffers in its own keeping: other stages may move theirs."""
    children = {name: None if child is None else bare_copy(child) for name, child in module._modules.items()}
    return copy_of(module, _modules=children, _buffers=dict(module._buffers), **own)


Watcher = Callable[[str], None]


class Watched(dict[str, Any]):
    """A module's parameters while somebody looks who reads them."""

    def __init__(self, entries: Mapping[str, Any], prefix: str, seen: Watcher) -> None:
        super().__init__(entries)
        self._tell = functools.partial(_tell, prefix, seen)

    def __getitem__(self, name: str) -> Any:
        self._tell(name)
        return super().__getitem__(name)


def _tell(prefix: str, seen: Watcher, name: str) -> None:
    seen(f"{prefix}.{name}" if prefix else name)
