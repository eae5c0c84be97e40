"""``split_model``: stages of a model that was not written for a pipeline, without rewriting it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from pipelab.errors import ConfigurationError, whole_number
from pipelab.models.call import Call, as_tuple, output_tensors, repeated
from pipelab.models.cut import NamedStage
from pipelab.models.graph import NoTrace
from pipelab.models.stack import cut_stack
from pipelab.models.traced import cut_trace
from pipelab.models.trying import said
from pipelab.models.watch import NoStack, run_model, undisturbed

__all__ = ["SplitModel", "split_model"]


class SplitModel:
    """A model and its stages, for ``Pipeline(split, schedule, ...)``.

    ``model`` is the caller's, untouched and trained in place. ``way`` is "stack" or "traced", ``why`` says why.
    Called with what a Pipeline takes as inputs it runs ``model`` and returns what the stages in a row return.
    """

    def __init__(
        self, model: nn.Module, call: Call, stages: Sequence[NamedStage], way: str, why: str, parts: Sequence[str]
    ) -> None:
        self.model, self.stages, self.way, self.why = model, tuple(stages), way, why
        self._call, self._parts = call, tuple(parts)

    def __call__(self, inputs: Any) -> Any:
        """What the loss gets, from the model in one piece."""
        args, kwargs = self._call.arguments(as_tuple(inputs))
        return output_tensors(self.model(*args, **kwargs))

    def __len__(self) -> int:
        return len(self.stages)

    def __iter__(self) -> Iterator[NamedStage]:
        return iter(self.stages)

    def __getitem__(self, s: int) -> NamedStage:
        return self.stages[s]

    def __repr__(self) -> str:
        counts = [sum(p.numel() for p in stage.parameters()) for stage in self.stages]
        lines = [
            f"  stage {s}: {part}, {count:,} parameters"
            for s, (part, count) in enumerate(zip(self._parts, counts, strict=True))
        ]
        return "\n".join([f"{type(self.model).__name__} in {len(self)} stages, {self.way}: {self.why}", *lines])


def split_model(
    model: nn.Module, example_inputs: Any, stages: int, cuts: Sequence[int] | Sequence[str] | None = None
) -> SplitModel:
    """Cut ``model`` into ``stages`` (a schedule's ``stages``: devices x chunks) without rewriting it.

    ``example_inputs``: what the model is called with: a tensor, a tuple of positional arguments, or a dict of keyword
    arguments. Its tensors are the inputs of ``Pipeline.step``, in this order, batch first and in any size; all else
    (``use_cache=False``) is the same in every call. ``cuts``: the first layer of stages 1, 2, ... of a stack, or the
    names of the submodules that stages 1, 2, ... begin with (default: stages of equal work).

    There are two ways. A **stack**, a list of layers called in order that does most of the work, is cut between layers:
    modules, hooks and dropout stay the model's own. Any other model is **traced** by ``torch.export``, in training and
    in evaluation, and its graph is cut; what skips stages travels through those between.
    Either way parameters keep their names and stay the model's own. It is run a few times on ``example_inputs``; its
    buffers, modes and the random generators are as before afterwards.

    Raises ConfigurationError that says why neither will do.
    """
    if not isinstance(model, nn.Module):
        raise ConfigurationError(f"split_model needs an nn.Module, got {type(model).__name__}")
    if not isinstance(stages, int) and isinstance(getattr(stages, "stages", None), int):
        raise ConfigurationError("stages must be a number, got a schedule; pass schedule.stages")
    stages = whole_number("stages", "", stages)
    call, example = Call.of(example_inputs)
    with undisturbed(model, training=False), torch.no_grad():
        try:
            run_model(model, call, repeated(example, 2))
        except Exception as error:
            raise ConfigurationError(f"the model cannot be called with example_inputs: {said(error)}") from error
    named = cuts is not None and any(isinstance(cut, str) for cut in cuts)
    try:
        if named:
            raise NoStack("cuts name submodules")
        cut, what = cut_stack(model, call, example, stages, cuts)  # type: ignore[arg-type]
        parts = [_told(stage.layers) for stage in cut]
        return SplitModel(model, call, cut, "stack", f"{what}; so it needs no tracing, and keeps its modules", parts)
    except NoStack as error:
        no_stack = str(error)
    try:
        traced = cut_trace(model, call, example, stages, cuts)
    except NoTrace as error:
        raise ConfigurationError(
            f"{type(model).__name__} cannot be split as it is. It is no plain stack: {no_stack}. It cannot be traced: "
            f"{error}. Give it a method pipeline_sections(), or pass build_stage(s) in place of the model"
        ) from error
    why = f"traced by torch.export, because it is no plain stack: {no_stack}"
    return SplitModel(model, call, traced, "traced", why, [stage.told for stage in traced])


def _told(layers: range) -> str:
    return f"layer {layers.start}" if len(layers) == 1 else f"layers {layers.start}-{layers.stop - 1}"
