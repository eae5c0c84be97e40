"""From a model to stages: cut or built, named as in the unsplit model, and refused where they cannot be split."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from torch import Tensor, nn

from pipelab.errors import ConfigurationError
from pipelab.models.cut import NamedStage, cut_model
from pipelab.models.split import SplitModel
from pipelab.schedules.schedule import Schedule

__all__ = [
    "make_stages",
    "named_parameters",
    "named_state",
    "refuse_redrawn_masks",
    "refuse_shared_parameters",
    "warn_of_batch_statistics",
]


def make_stages(
    model: nn.Module | SplitModel | Callable[[int], nn.Module],
    schedule: Schedule,
    cuts: Sequence[int] | None,
    here: Iterable[int],
) -> dict[int, nn.Module]:
    """The modules of the stages that live ``here``, cut from a model or built by ``build_stage(s)``.

    A split model has them. Raises ConfigurationError.
    """
    if isinstance(model, type):
        raise ConfigurationError(f"model is the class {model.__name__}; pass an instance, {model.__name__}(...)")
    if isinstance(model, SplitModel):
        return {s: _as_split(model, schedule, cuts)[s] for s in here}
    if isinstance(model, nn.Module):
        cut: dict[int, nn.Module] = dict(enumerate(cut_model(model, schedule.stages, cuts)))
        refuse_shared_parameters(cut)
        return {s: cut[s] for s in here}
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
    refuse_shared_parameters(stages)
    return stages


def _as_split(split: SplitModel, schedule: Schedule, cuts: Sequence[int] | None) -> SplitModel:
    """``split``, if it fits the schedule."""
    if cuts is not None:
        raise ConfigurationError("cuts are for a model that is cut here; pass them to split_model")
    if len(split) != schedule.stages:
        raise ConfigurationError(
            f"the model is split into {len(split)} stages, the schedule has {schedule.stages}; split it again: "
            "split_model(model, example_inputs, schedule.stages)"
        )
    refuse_shared_parameters(dict(enumerate(split)))
    return split


def named_parameters(s: int, stage: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """A cut model's parameters keep their names; those of a module from build_stage(s) stand under ``stages.s``."""
    if isinstance(stage, NamedStage):
        yield from stage.named_unsplit_parameters()
    else:
        yield from ((f"stages.{s}.{name}", parameter) for name, parameter in stage.named_parameters())


def named_state(s: int, stage: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and persistent buffers under the same names."""
    if isinstance(stage, NamedStage):
        yield from stage.unsplit_state()
    else:
        yield from ((f"stages.{s}.{name}", tensor) for name, tensor in stage.state_dict(keep_vars=True).items())


def refuse_shared_parameters(stages: Mapping[int, nn.Module]) -> None:
    """Raise ConfigurationError if a parameter lives in two stages: each would step it by its own part."""
    owner: dict[int, tuple[int, str]] = {}
    for s, stage in stages.items():
        for name, parameter in named_parameters(s, stage):
            other, known = owner.setdefault(id(parameter), (s, name))
            if other != s:
                raise ConfigurationError(
                    f"parameter '{known}' of stage {other} is also '{name}' of stage {s}: a shared parameter cannot "
                    "live in two stages; untie it, or cut the model so that one stage holds both"
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


def refuse_redrawn_masks(stages: Mapping[int, nn.Module]) -> None:
    """Raise ConfigurationError if a dropout would draw another mask when its forward is recomputed."""
    for s, stage in stages.items():
        for name, module in stage.named_modules():
            if _draws(module):
                raise ConfigurationError(
                    f"stage {s} has {type(module).__name__} at '{_unsplit(stage, name)}': "
                    "recomputing (R) would draw another mask than "
                    "the forward did; use pipelab.models.KeyedDropout, or a schedule without R"
                )
