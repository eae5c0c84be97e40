"""Cutting a model's layers into stages."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.errors import ConfigurationError

__all__ = [
    "NamedStage",
    "Sections",
    "Stage",
    "call_layer",
    "call_with_buffers",
    "cut_layers",
    "cut_model",
    "even_cuts",
    "sections_of",
]


@dataclass(frozen=True)
class Sections:
    """A model as a chain of submodules, by name: ``layers`` are cut, ``first`` and ``last`` go with the end stages."""

    first: tuple[str, ...]
    layers: tuple[str, ...]
    last: tuple[str, ...]


def sections_of(model: nn.Module) -> Sections:
    """How ``model`` can be cut: what its ``pipeline_sections()`` says, or the children of an ``nn.Sequential``.

    Raises ConfigurationError for other models.
    """
    describe = getattr(model, "pipeline_sections", None)
    if callable(describe):
        sections = describe()
        return sections if isinstance(sections, Sections) else Sections(*map(tuple, sections))
    chain = isinstance(model, nn.Sequential)
    if chain and type(model).forward is nn.Sequential.forward and "forward" not in vars(model):
        return Sections((), tuple(model._modules), ())
    own = ", an nn.Sequential with a forward of its own" if chain else ""
    raise ConfigurationError(
        f"cannot see the layers of {type(model).__name__}{own}: pass "
        "split_model(model, example_inputs, schedule.stages), "
        "example_inputs being what the model is called with, in place of the model; make it an nn.Sequential; give it "
        "a method pipeline_sections() that returns the names of its submodules (first, layers, last); or pass a "
        "function build_stage(s)"
    )


def cut_layers(layers: int, stages: int, cuts: Sequence[int] | None = None) -> tuple[range, ...]:
    """Which layers each stage runs: 48 layers in 4 stages are 0-11, 12-23, 24-35, 36-47.

    A remainder is given to the first stages, one layer each. ``cuts`` names the first layer of stages 1, 2, ...
    instead. Raises ConfigurationError if a stage would be empty.
    """
    if stages > layers:
        raise ConfigurationError(
            f"{stages} stages need at least {stages} layers, the model has {layers}; use at most {layers} stages "
            "(devices x chunks) or a deeper model"
        )
    if cuts is None:
        small, rest = divmod(layers, stages)
        sizes = [small + (s < rest) for s in range(stages)]
        bounds = [sum(sizes[:s]) for s in range(stages + 1)]
    else:
        if not isinstance(cuts, Sequence) or not all(isinstance(cut, int) for cut in cuts):
            raise ConfigurationError(f"cuts must be whole numbers, the first layer of stages 1, 2, ..., got {cuts!r}")
        bounds = [0, *cuts, layers]
        even = [r.start for r in cut_layers(layers, stages)][1:]
        if len(bounds) != stages + 1:
            raise ConfigurationError(
                f"{stages} stages need {stages - 1} cuts, got {len(cuts)}: {list(cuts)}; try {even}"
            )
        if any(a >= b for a, b in pairwise(bounds)):
            raise ConfigurationError(
                f"cuts must rise and leave each stage a layer between 0 and {layers}, got {list(cuts)}; try {even}"
            )
    return tuple(range(a, b) for a, b in pairwise(bounds))


def even_cuts(weights: Sequence[float], stages: int) -> list[int]:
    """The first of stages 1, 2, ... such that stages weigh as much alike as can be (least sum of squares).

    Equal weights are cut as :func:`cut_layers` cuts them.
    """
    count = len(weights)
    even = [chunk.start for chunk in cut_layers(count, stages)][1:]
    if len(set(weights)) <= 1:
        return even
    sums = [0.0, *accumulate(weights)]
    # best[k]: (cost, bounds) of the first k in as many stages as have been looked at.
    best: dict[int, tuple[float, tuple[int, ...]]] = {k: (sums[k] ** 2, (k,)) for k in range(1, count + 1)}
    for _ in range(1, stages):
        best = {
            k: min((cost + (sums[k] - sums[j]) ** 2, (*bounds, k)) for j, (cost, bounds) in best.items() if j < k)
            for k in range(min(best) + 1, count + 1)
        }
    return list(best[count][1][:-1])


class NamedStage(nn.Module):
    """A stage that was made from a model: its tensors have names there."""

    def unsplit_name(self, name: str) -> str:
        """The name in the unsplit model of what this stage calls ``name``: a tensor or a submodule."""
        raise NotImplementedError

    def named_unsplit_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(name in the unsplit model, parameter), each parameter once."""
        yield from ((self.unsplit_name(name), parameter) for name, parameter in self.named_parameters())

    def unsplit_state(self) -> Iterator[tuple[str, Tensor]]:
        """(name in the unsplit model, tensor) of all parameters and persistent buffers."""
        yield from ((self.unsplit_name(name), tensor) for name, tensor in self.state_dict(keep_vars=True).items())


class Stage(NamedStage):
    """A contiguous run of a model's submodules. Parameters keep the names that they have in the unsplit model."""

    def __init__(self, parts: Sequence[tuple[str, nn.Module]]) -> None:
        super().__init__()
        self.names = tuple(name for name, _ in parts)
        self.parts = nn.ModuleList(module for _, module in parts)

    def forward(self, x: Any) -> Any:
        """Run the parts in a row; a layer that takes several arguments gets a tuple unpacked."""
        for part in self.parts:
            x = call_layer(part, x)
        return x

    def unsplit_name(self, name: str) -> str:
        """``parts.2.weight`` is the weight of the third of ``names``."""
        _, number, *rest = name.split(".", 2)
        return ".".join([self.names[int(number)], *rest])


def call_layer(layer: nn.Module, x: Any) -> Any:
    """``layer(x)`` as nn.Sequential calls it, except that a layer with several arguments gets a tuple unpacked."""
    return layer(*x) if isinstance(x, tuple) and takes_several(layer) else layer(x)


def call_with_buffers(layer: nn.Module, buffers: Mapping[str, Tensor], x: Any) -> Any:
    """``call_layer(layer, x)`` on these buffers in place of the layer's own."""
    named = {f"layer.{name}": buffer for name, buffer in buffers.items()}
    return torch.func.functional_call(_Caller(layer), named, (x,))


class _Caller(nn.Module):
    """Lets functional_call run a layer the way a stage runs it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return call_layer(self.layer, x)


def takes_several(layer: nn.Module) -> bool:
    """Whether a tuple is several arguments of ``layer``."""
    return _required_arguments(layer) > 1


def _required_arguments(layer: nn.Module) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:  # a compiled layer wraps the one that knows its arguments
        parameters = inspect.signature(getattr(layer, "_orig_mod", layer).forward).parameters.values()
    except (TypeError, ValueError):
        return 1
    return sum(parameter.kind in kinds and parameter.default is parameter.empty for parameter in parameters)


def cut_model(model: nn.Module, stages: int, cuts: Sequence[int] | None = None) -> tuple[Stage, ...]:
    """The stages of ``model``; they share its submodules, so training them trains the model."""
    sections = sections_of(model)
    modules = dict(model.named_modules(remove_duplicate=False))
    unknown = [n for n in (*sections.first, *sections.layers, *sections.last) if n not in modules]
    if unknown:
        raise ConfigurationError(
            f"pipeline_sections() of {type(model).__name__} names {unknown[0]!r}, but the model has no such submodule"
        )
    covered = {
        id(p) for name in (*sections.first, *sections.layers, *sections.last) for p in modules[name].parameters()
    }
    left_out = [name for name, p in model.named_parameters() if id(p) not in covered]
    if left_out:
        raise ConfigurationError(
            f"pipeline_sections() of {type(model).__name__} leaves out '{left_out[0]}': name every submodule that has "
            "parameters, or the stages train another model than this one"
        )
    chunks = cut_layers(len(sections.layers), stages, cuts)
    result = []
    for s, chunk in enumerate(chunks):
        names = [sections.layers[k] for k in chunk]
        if s == 0:
            names = [*sections.first, *names]
        if s == stages - 1:
            names = [*names, *sections.last]
        result.append(Stage([(name, modules[name]) for name in names]))
    return tuple(result)
