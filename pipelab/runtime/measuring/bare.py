"""A model without weights: what is left to compare with, when its own are split among processes."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from pipelab.models.split import SplitModel

__all__ = ["bare", "fill", "is_bare"]


def bare(whole: Any) -> Any:
    """A copy of a model, or of one that was split into stages, whose parameters have shapes and no memory."""
    if whole is None:
        return None
    memo: dict[int, Any] = {}
    for parameter in _module(whole).parameters():
        made = nn.Parameter(torch.empty_like(parameter, device="cpu"), parameter.requires_grad)
        made.untyped_storage().resize_(0)
        memo[id(parameter)] = made
    return copy.deepcopy(whole, memo)


def is_bare(whole: Any) -> bool:
    """Whether it has no memory."""
    return whole is not None and any(p.untyped_storage().nbytes() < p.nbytes for p in _module(whole).parameters())


def fill(whole: Any, *, full: bool) -> None:
    """Give its parameters memory, or take it away."""
    for parameter in _module(whole).parameters():
        parameter.untyped_storage().resize_(parameter.nbytes if full else 0)


def _module(whole: Any) -> nn.Module:
    module: nn.Module = whole.model if isinstance(whole, SplitModel) else whole
    return module
