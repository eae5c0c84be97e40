"""A model's tensors by their names in the unsplit model: gradients, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from pipelab.errors import ConfigurationError
from pipelab.models.cut import NamedStage
from pipelab.models.shards import like, whole

__all__ = ["TensorsByName", "named_parameters", "named_state"]


def named_parameters(s: int, stage: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """A cut model's parameters keep their names; those of a module from build_stage(s) stand under ``stages.s``."""
    if isinstance(stage, NamedStage):
        yield from stage.named_unsplit_parameters()
    else:
        yield from ((f"stages.{s}.{name}", parameter) for name, parameter in stage.named_parameters())


def named_state(s: int, stage: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and persistent buffers under the same names; one that has two names in the stage comes twice."""
    if isinstance(stage, NamedStage):
        yield from stage.unsplit_state()
    else:
        yield from ((f"stages.{s}.{name}", tensor) for name, tensor in stage.state_dict(keep_vars=True).items())


class TensorsByName:
    """What an engine can tell of the parameters and buffers that it holds."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(name in the unsplit model, parameter), stage by stage."""
        raise NotImplementedError

    def named_state(self) -> Iterator[tuple[str, Tensor]]:
        """(name in the unsplit model, tensor) of parameters and persistent buffers."""
        raise NotImplementedError

    def gradients(self) -> dict[str, Tensor]:
        """The gradients of the last step by name; zeros where a parameter got none."""
        return {
            name: whole(torch.zeros_like(p) if p.grad is None else p.grad)
            for name, p in self.named_parameters()
            if p.requires_grad
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Parameters and buffers by name."""
        return {name: whole(tensor.detach()) for name, tensor in self.named_state()}

    def aliases(self) -> Mapping[str, str]:
        """Other names of tied parameters, and the one that each is known under."""
        raise NotImplementedError

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy tensors in by name. Raises ConfigurationError everywhere if names or shapes do not match anywhere.

        A tied parameter is known by its first name; a state may hold it under its others, too.
        """
        own, aliases = dict(self.named_state()), self.aliases()
        known = self.all_names()
        state = {aliases[name]: tensor for name, tensor in state.items() if name in aliases} | {
            name: tensor for name, tensor in state.items() if name not in aliases
        }

        def check() -> None:
            odd = sorted((set(state) - known) | (set(own) - set(state)))
            if odd:
                raise ConfigurationError(f"the state does not match this model: {', '.join(odd[:4])}")
            for name, tensor in own.items():
                if tensor.shape != state[name].shape:
                    raise ConfigurationError(f"{name} is {list(tensor.shape)}, the state has {list(state[name].shape)}")

        self.together(check)
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(like(tensor, state[name]))

    def all_names(self) -> set[str]:
        """The names of the whole model's state, wherever it is."""
        return {name for name, _ in self.named_state()}

    def together(self, work: Callable[[], None]) -> None:
        """Do ``work``; if it raises in any process of the pipeline, it raises in all."""
        work()
