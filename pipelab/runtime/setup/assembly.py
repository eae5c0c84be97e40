"""From a model to stages: cut or built, named as in the unsplit model, and refused where they cannot be split."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from pipelab.errors import ConfigurationError
from pipelab.models.cut import NamedStage, call_layer, cut_model
from pipelab.models.split import SplitModel
from pipelab.runtime.setup.by_name import named_parameters
from pipelab.runtime.setup.settings import Settings
from pipelab.runtime.setup.ties import find_ties
from pipelab.schedules.schedule import Schedule

__all__ = [
    "Parts",
    "StageWithLoss",
    "make_stages",
    "model_again",
    "refuse_batch_statistics",
    "refuse_hooks_that_would_not_run",
    "refuse_redrawn_masks",
    "warn_of_batch_statistics",
    "warn_of_random_masks",
    "with_loss",
]


@dataclass(frozen=True)
class Parts:
    """What a model was made into: the stages that live here, which names are one parameter, and the model itself."""

    stages: dict[int, nn.Module]
    tied: tuple[tuple[str, ...], ...] = ()
    whole: nn.Module | SplitModel | None = None

    @property
    def module(self) -> nn.Module | None:
        """The model itself."""
        return self.whole.model if isinstance(self.whole, SplitModel) else self.whole


def make_stages(
    model: nn.Module | SplitModel | Callable[[int], nn.Module],
    schedule: Schedule,
    cuts: Sequence[int] | None,
    here: Iterable[int],
) -> Parts:
    """The modules of the stages that live ``here``, cut from a model or built by ``build_stage(s)``.

    A split model has them. Raises ConfigurationError.
    """
    if isinstance(model, type):
        raise ConfigurationError(f"model is the class {model.__name__}; pass an instance, {model.__name__}(...)")
    if isinstance(model, nn.Module | SplitModel):
        made: Iterable[nn.Module]
        if isinstance(model, SplitModel):
            made = _as_split(model, schedule, cuts)
        else:
            made = cut_model(model, schedule.stages, cuts)
        parts = Parts(dict(enumerate(made)), whole=model)
        assert parts.module is not None
        if not isinstance(model, SplitModel) or model.way == "stack":  # what is traced is traced with its hooks
            refuse_hooks_that_would_not_run(parts.module, parts.stages.values())
        tied = find_ties(parts.stages, [name for name, _ in parts.module.named_parameters()])
        return Parts({s: parts.stages[s] for s in here}, tied, model)
    if not callable(model):
        raise ConfigurationError(f"model must be an nn.Module or build_stage(s), got {type(model).__name__}")
    if cuts is not None:
        raise ConfigurationError("cuts are for a model that is cut here; build_stage(s) makes its stages itself")
    stages = {}
    for s in here:
        stage = model(s)
        if not isinstance(stage, nn.Module):
            raise ConfigurationError(f"build_stage({s}) must return an nn.Module, got {type(stage).__name__}")
        stages[s] = stage
    return Parts(stages, find_ties(stages))


def _as_split(split: SplitModel, schedule: Schedule, cuts: Sequence[int] | None) -> SplitModel:
    """``split``, if it fits the schedule."""
    if cuts is not None:
        raise ConfigurationError("cuts are for a model that is cut here; pass them to split_model")
    if len(split) != schedule.stages:
        raise ConfigurationError(
            f"the model is split into {len(split)} stages, the schedule has {schedule.stages}; split it again: "
            "split_model(model, example_inputs, schedule.stages)"
        )
    return split


def model_again(model: Any, schedule: Schedule, made: int, here: Mapping[int, nn.Module]) -> Any:
    """The model for another schedule: of ``made`` stages that were built, those that are ``here`` stay what they are.

    Raises ConfigurationError if the schedule has other stages than those that build_stage has made.
    """
    if isinstance(model, nn.Module | SplitModel):
        return model
    if schedule.stages != made:
        raise ConfigurationError(
            f"build_stage has made {made} stages, and schedule '{schedule.name}' has {schedule.stages}; take a "
            f"schedule with {made} stages (devices x chunks), or pass the model itself, which can be cut again"
        )
    return (lambda s: here[s] if s in here else model(s)) if here else model


class StageWithLoss(NamedStage):
    """The last stage and a loss that has parameters: they are trained with the stage, as ``loss.NAME``."""

    def __init__(self, s: int, stage: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.s, self.stage, self.loss = s, stage, loss

    def forward(self, x: Any) -> Any:
        """The stage's output."""
        return call_layer(self.stage, x)

    def unsplit_name(self, name: str) -> str:
        """The stage's own names as they are without the loss."""
        whose, _, rest = name.partition(".")
        if whose == "loss":
            return name
        return self.stage.unsplit_name(rest) if isinstance(self.stage, NamedStage) else f"stages.{self.s}.{rest}"


def with_loss(parts: Parts, settings: Settings) -> Parts:
    """``parts`` with the loss's parameters in the last stage, if it has some and the stage lives here."""
    loss, last = settings.loss, settings.schedule.stages - 1
    stage = parts.stages.get(last)
    if stage is None or isinstance(stage, StageWithLoss) or not isinstance(loss, nn.Module):
        return parts
    if next(loss.parameters(), None) is None:
        return parts
    made = StageWithLoss(last, stage, loss)
    of_model = {id(p): name for s, other in parts.stages.items() for name, p in named_parameters(s, other)}
    of_model |= {} if parts.module is None else {id(p): name for name, p in parts.module.named_parameters()}
    shared = [of_model[id(p)] for p in loss.parameters() if id(p) in of_model]
    if shared:
        raise ConfigurationError(
            f"the loss holds '{shared[0]}', a parameter of the model; return what it computes with that from the model"
        )
    clash = {name for name, _ in named_parameters(last, stage)} & {
        f"loss.{name}" for name, _ in loss.named_parameters()
    }
    if clash:
        raise ConfigurationError(f"'{min(clash)}' is a parameter of the model and of the loss; rename one")
    return replace(parts, stages={**parts.stages, last: made})


def refuse_hooks_that_would_not_run(model: nn.Module, stages: Iterable[nn.Module]) -> None:
    """Raise ConfigurationError for hooks on the model, or on what holds its layers: their forward is never called."""
    run = {id(module) for stage in stages for module in stage.modules()}
    for name, module in model.named_modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
        if id(module) not in run and any(hooks) and not isinstance(module, nn.ModuleList | nn.ModuleDict):
            where = f"'{name}'" if name else f"the whole {type(module).__name__}"
            raise ConfigurationError(
                f"{where} has a hook, and a pipeline runs its layers without calling it: the hook would not run; put "
                "it on a layer"
            )


def warn_of_batch_statistics(stages: Mapping[int, nn.Module], microbatches: int) -> None:
    """Warn if a stage normalises over the batch: it will see a micro-batch, and its gradients are other gradients."""
    for s, stage in stages.items():
        for name, module in stage.named_modules():
            if microbatches > 1 and isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
                warnings.warn(
                    f"stage {s} has {type(module).__name__} at '{_unsplit(stage, name)}': it "
                    "normalises over each micro-batch, so loss "
                    "and gradients differ from the unsplit model's; LayerNorm and GroupNorm do not depend on the batch",
                    stacklevel=3,
                )
                return


def refuse_batch_statistics(stages: Mapping[int, nn.Module]) -> None:
    """Raise ConfigurationError if a stage keeps running statistics, which would be of weights that are gone."""
    for s, stage in stages.items():
        for name, module in stage.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
                raise ConfigurationError(
                    f"stage {s} has {type(module).__name__} at '{_unsplit(stage, name)}': its running statistics would "
                    "mix several versions of the weights, because this schedule updates them while micro-batches are "
                    "on their way; use LayerNorm or GroupNorm, track_running_stats=False, or '1f1b', which flushes"
                )


def _unsplit(stage: nn.Module, name: str) -> str:
    """A submodule's name in the unsplit model."""
    return stage.unsplit_name(name) if name and isinstance(stage, NamedStage) else name


def _draws(module: nn.Module) -> bool:
    """Whether torch's own random modules are among it; what a model draws by itself cannot be seen from here."""
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        return module.dropout > 0
    return isinstance(module, nn.RReLU)


def warn_of_random_masks(stages: Mapping[int, nn.Module]) -> None:
    """Warn if a dropout draws: the model in one piece draws other masks, so its gradients are no proof."""
    for s, stage in stages.items():
        for name, module in stage.named_modules():
            if module.training and _draws(module):
                warnings.warn(
                    f"stage {s} has {type(module).__name__} at '{_unsplit(stage, name)}', which drops others in the "
                    "model in one piece: verify compares two different runs; call model.eval() first, or use "
                    "pipelab.models.KeyedDropout",
                    stacklevel=4,
                )
                return


def refuse_redrawn_masks(
    stages: Mapping[int, nn.Module],
    why: str = "recomputing (R) would draw another mask than the forward did",
    instead: str = "a schedule without R",
) -> None:
    """Raise ConfigurationError if a dropout would draw another mask where the same one is needed."""
    for s, stage in stages.items():
        for name, module in stage.named_modules():
            if _draws(module):
                raise ConfigurationError(
                    f"stage {s} has {type(module).__name__} at '{_unsplit(stage, name)}': {why}; use "
                    f"pipelab.models.KeyedDropout, or {instead}"
                )
