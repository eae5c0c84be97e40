"""Parameters that a stage computes with and does not own: kept in a list, or read through another module.

In one process such a parameter is another stage's, in another process a copy of it: its gradient would go astray. Where
weights have versions, it may also be of another version. So graphs of a stage's forwards are looked through for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.autograd.graph import GradientEdge

from pipelab.errors import ConfigurationError
from pipelab.models.shards import is_gathered
from pipelab.runtime.device.versions import Versions

__all__ = ["Strangers"]


class Strangers:
    """Looks for them in stage ``index``: in its first graph, and where weights have versions in one of each step.

    In its first step two versions are looked at: code that keeps a parameter from call to call is right in the first.
    """

    def __init__(self, index: int, module: nn.Module) -> None:
        self._index, self._module = index, module
        self._left = 0 if is_gathered(module) else 2  # gathered ones are not the stage's own
        self._seen: Any = ()

    def begin(self) -> None:
        """A step begins in which weights have versions."""
        self._left = max(self._left, 1)

    def look(self, edges: Iterable[GradientEdge | None], versions: Versions | None) -> None:
        """Raise ConfigurationError if the graph behind ``edges`` ends in a parameter that is not the stage's own."""
        shown = None if versions is None else versions.shown
        if self._left and shown is not self._seen:
            self._refuse([edge.node for edge in edges if edge is not None], versions is not None)
            self._left, self._seen = self._left - 1, shown

    def _refuse(self, waiting: list[Any], has_versions: bool) -> None:
        known = {id(parameter) for parameter in self._module.parameters()}
        seen = set(waiting)
        while waiting:
            node = waiting.pop()
            leaf = getattr(node, "variable", None)
            if isinstance(leaf, nn.Parameter) and id(leaf) not in known:
                mend = (
                    "assign it to the layer that uses it (self.weight = other.weight): then the two are trained as one"
                )
                if has_versions:
                    mend = (
                        "read it from its layer in each call (layer.weight): without a flush each version of the "
                        "weights has parameters of its own"
                    )
                raise ConfigurationError(
                    f"stage {self._index} computes with a parameter of shape {list(leaf.shape)} that is not among its "
                    "own: it is kept out of parameters(), in a list or in another module, and would not be trained as "
                    f"in the model; {mend}"
                )
            for following, _ in node.next_functions:
                if following is not None and following not in seen:
                    seen.add(following)
                    waiting.append(following)
