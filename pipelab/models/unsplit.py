"""What a stage that was split off calls its tensors: as the unsplit model does, tied ones included."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from torch import Tensor, nn

from pipelab.models.cut import NamedStage

__all__ = ["SplitStage"]


class SplitStage(NamedStage):
    """``tree`` holds the model's submodules at their places, as far as they are this stage's.

    A tied parameter is called by the name that ``named_parameters()`` of the model gives it, wherever it stands; the
    state has it under all its names, as the model's has.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        named = defaultdict(list)
        for name, parameter in model.named_parameters(remove_duplicate=False):
            named[id(parameter)].append(name)
        self.tied = {name: tuple(names) for names in named.values() if len(names) > 1 for name in names}

    def unsplit_name(self, name: str) -> str:
        """``tree.h.2.weight`` is the model's ``h.2.weight``."""
        name = name.removeprefix("tree.")
        return self.tied.get(name, (name,))[0]

    def unsplit_state(self) -> Iterator[tuple[str, Tensor]]:
        """(name in the unsplit model, tensor) of all parameters and persistent buffers, by all their names."""
        found = {}
        for name, tensor in self.state_dict(keep_vars=True).items():
            name = name.removeprefix("tree.")
            found.update(dict.fromkeys(self.tied.get(name, (name,)), tensor))
        yield from found.items()
