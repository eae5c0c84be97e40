"""Ranks that a learner plays in one process: whose each tensor is, where two ranks' tensors meet, what they sum up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pipelab.teaching.exercises.lesson_01.graphs import tensors_in

__all__ = ["Apart"]


class Apart(TorchFunctionMode):
    """Inside, every result belongs to the rank of what it was made from.

    ``met`` tells where tensors of two ranks met without :meth:`sum_forward` or :meth:`sum_backward`, and ``calls`` how
    often each of the two summed something up over the ranks.
    """

    def __init__(self, ranks: int) -> None:
        super().__init__()
        self.ranks, self.met = ranks, list[str]()
        self.calls = Counter[str]()
        self._on: dict[int, tuple[int, Tensor]] = {}  # a tensor is kept, so that no other one gets its id
        self._carrying = False

    def put(self, tensor: Tensor, rank: int) -> Tensor:
        """``tensor``, which is on ``rank`` from now on."""
        self._on[id(tensor)] = (rank, tensor)
        return tensor

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self._carrying:
            ranks = self._ranks_of([args, kwargs or {}])
            if len(ranks) > 1:
                self.met.append(f"{getattr(func, '__name__', 'a function')} of ranks {min(ranks)} and {max(ranks)}")
            for tensor in tensors_in({0: [result]}) if ranks else ():
                self.put(tensor, min(ranks))
        return result

    def _ranks_of(self, values: list[Any]) -> set[int]:
        return {self._on[id(tensor)][0] for tensor in tensors_in({0: values}) if id(tensor) in self._on}

    def sum_forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """An all-reduce in the forward pass: each rank gets the sum. Backward, each rank keeps its own gradient."""

        def forward(ctx: Any, *given: Tensor) -> tuple[Tensor, ...]:
            return self._summed("sum_forward", given)

        return self._carried("sum_forward", tensors, forward, lambda ctx, *grads: grads)

    def sum_backward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The other way round: forward, each rank keeps its own tensor. Backward, each rank gets the sum."""

        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
            return self._summed("sum_backward", grads)

        return self._carried("sum_backward", tensors, lambda ctx, *given: tuple(t.clone() for t in given), backward)

    def _summed(self, name: str, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
        self.calls[name] += 1
        return tuple(torch.stack(list(given)).sum(0) for _ in given)

    def _carried(
        self, name: str, given: Any, forward: Callable[..., Any], backward: Callable[..., Any]
    ) -> list[Tensor]:
        tensors = list(given) if isinstance(given, list | tuple) else []
        if len(tensors) != self.ranks or not all(isinstance(tensor, Tensor) for tensor in tensors):
            raise ValueError(f"{name} takes a list of {self.ranks} tensors, one of each rank")
        if len({tensor.shape for tensor in tensors}) > 1:
            shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors)
            raise ValueError(f"{name} adds tensors of the same shape, and these have {shapes}")
        if any(self._ranks_of([tensor]) - {rank} for rank, tensor in enumerate(tensors)):
            raise ValueError(f"{name} takes the tensor of rank 0 first, then that of rank 1, and so on")
        function = type(
            name, (torch.autograd.Function,), {"forward": staticmethod(forward), "backward": staticmethod(backward)}
        )
        self._carrying = True
        try:
            return [self.put(tensor, rank) for rank, tensor in enumerate(function.apply(*tensors))]  # type: ignore[attr-defined]
        finally:
            self._carrying = False
