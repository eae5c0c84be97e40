"""What the autograd graphs in a device's memory reach, and what they still hold."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["nodes", "stages_reached", "still_held", "tensors_in"]


def tensors_in(memory: Mapping[Any, Any]) -> list[Tensor]:
    """The tensors that a device has kept, also inside lists, tuples and dicts."""
    import torch

    found: list[Any] = []
    seen: set[int] = set()  # a list may hold itself
    todo: list[Any] = list(memory.values())
    while todo:
        value = todo.pop()
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple | dict) and id(value) not in seen:
            seen.add(id(value))
            todo += value.values() if isinstance(value, dict) else value
    return found


def nodes(tensors: Sequence[Tensor]) -> list[Any]:
    """All nodes of the graphs that end in ``tensors``."""
    seen: dict[Any, None] = {}
    todo: list[Any] = [tensor.grad_fn for tensor in tensors]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen[node] = None
            todo += [following for following, _ in node.next_functions]
    return list(seen)


def still_held(tensors: Sequence[Tensor], stage: nn.Module) -> list[Tensor]:
    """What the graphs of ``tensors`` still hold for a backward, weights left out. A backward that used it frees it."""
    import torch

    weights = {parameter.data_ptr() for parameter in stage.parameters()}
    found: dict[int, Tensor] = {}
    for node in nodes(tensors):
        for name in dir(node):
            if name.startswith("_saved_"):
                with contextlib.suppress(RuntimeError):  # this is how autograd says that it is freed
                    saved = getattr(node, name)
                    if isinstance(saved, torch.Tensor) and saved.data_ptr() not in weights:
                        found[saved.data_ptr()] = saved
    return list(found.values())


def stages_reached(tensors: Sequence[Tensor], stages: Sequence[nn.Module]) -> list[int]:
    """The stages whose parameters a backward from ``tensors`` would come to."""
    owner = {id(parameter): s for s, stage in enumerate(stages) for parameter in stage.parameters()}
    leaves = {id(getattr(node, "variable", None)) for node in nodes(tensors)}
    return sorted({owner[leaf] for leaf in leaves & set(owner)})
