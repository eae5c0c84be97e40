"""Parameters that a stage computes with and does not own: kept in a list, or read through another module.

In one process such a parameter is another stage's, in another process a copy of it: its gradient would go astray. So
the graph of a stage's first forward is looked through for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from pipelab.errors import ConfigurationError

__all__ = ["refuse_strangers"]


def refuse_strangers(index: int, nodes: Iterable[Any], own: Iterable[nn.Parameter]) -> None:
    """Raise ConfigurationError if the graph behind ``nodes`` ends in a parameter that is not among stage's ``own``."""
    known = {id(parameter) for parameter in own}
    waiting = [node for node in nodes if node is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, nn.Parameter) and id(leaf) not in known:
            raise ConfigurationError(
                f"stage {index} computes with a parameter of shape {list(leaf.shape)} that is not among its own: it is "
                "kept out of parameters(), in a list or in another module, and would not be trained as in the model; "
                "assign it to the layer that uses it (self.weight = other.weight): then the two are trained as one"
            )
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
