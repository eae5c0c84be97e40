"""Random numbers where they may not be drawn: in what runs a forward again.

A forward that is run again must draw what it drew before. Torch's CPU generator belongs to the whole process: to draw
from it again, in R or in ``torch.utils.checkpoint``, gives another mask, because other devices have drawn meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from pipelab.errors import ConfigurationError

__all__ = ["NoRedraw"]

_WITH_PROBABILITY = {
    functional.dropout,
    functional.dropout1d,
    functional.dropout2d,
    functional.dropout3d,
    functional.alpha_dropout,
    functional.feature_alpha_dropout,
    torch.dropout,
    torch.dropout_,
    torch.native_dropout,
    torch.alpha_dropout,
    torch.feature_dropout,
    torch.feature_alpha_dropout,
}
"""(input, p, training, ...)."""
_ALWAYS = {
    functional.gumbel_softmax,
    torch.bernoulli,
    torch.binomial,
    torch.multinomial,
    torch.normal,
    torch.poisson,
    torch.rand,
    torch.rand_like,
    torch.randint,
    torch.randint_like,
    torch.randn,
    torch.randn_like,
    torch.randperm,
    Tensor.bernoulli,
    Tensor.bernoulli_,
    Tensor.cauchy_,
    Tensor.exponential_,
    Tensor.geometric_,
    Tensor.log_normal_,
    Tensor.multinomial,
    Tensor.normal_,
    Tensor.random_,
    Tensor.uniform_,
}


class NoRedraw(TorchFunctionMode):
    """Inside, a draw from torch's own generator raises ConfigurationError; ``what`` says what runs again.

    ``graphs_only``: only what builds a graph, as a recomputed forward does and a hook on a gradient does not.
    """

    def __init__(self, what: str, *, graphs_only: bool = False) -> None:
        super().__init__()
        self._what, self._graphs_only = what, graphs_only

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What torch asks before each of its functions."""
        given = kwargs or {}
        seen = torch.is_grad_enabled() or not self._graphs_only
        if seen and given.get("generator") is None and _draws(func, args, given):
            raise ConfigurationError(
                f"{self._what} draws random numbers ({func.__name__}): they would be others than in the first forward; "
                "use pipelab.models.KeyedDropout, whose masks are the same each time, or do without running it again"
            )
        return func(*args, **given)


def _draws(func: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any]) -> bool:
    if func in _ALWAYS:
        return True
    if func in _WITH_PROBABILITY:
        p = given.get("p", args[1] if len(args) > 1 else 0.5)
        return bool(given.get("training", given.get("train", args[2] if len(args) > 2 else True))) and p > 0
    if func is functional.rrelu:
        return bool(given.get("training", args[3] if len(args) > 3 else False))
    if func is functional.scaled_dot_product_attention:
        return bool((given.get("dropout_p", args[4] if len(args) > 4 else 0.0)) > 0)
    if func is functional.multi_head_attention_forward:
        return bool(given.get("training", True)) and bool(given.get("dropout_p", args[10] if len(args) > 10 else 0.0))
    return False
