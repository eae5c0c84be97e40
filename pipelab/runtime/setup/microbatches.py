"""Cutting a batch into micro-batches, and weighing their losses so that the sum is the loss of the whole batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.errors import ConfigurationError
from pipelab.runtime.device.payload import Payload, flatten
from pipelab.runtime.device.stage import Task

__all__ = [
    "LossTerms",
    "batch_size",
    "count_tasks",
    "default_terms",
    "join_batches",
    "make_inputs",
    "make_tasks",
    "reduction_of",
    "weigh",
]

LossTerms = Callable[[Any], float]


def batch_size(inputs: Any, targets: Any, *, needs_inputs: bool = True) -> int:
    """The number of sequences: the first dimension, which all inputs and targets must share.

    Without ``needs_inputs`` there may be targets alone.
    """
    if inputs is None and not needs_inputs:
        return batch_size(targets, None)
    tensors, _ = flatten(inputs, "inputs")
    if any(tensor.dim() == 0 for tensor in tensors):
        raise ConfigurationError("inputs must have a batch dimension, got a tensor without dimensions")
    size = len(tensors[0])
    for tensor in tensors:
        if len(tensor) != size:
            raise ConfigurationError(f"inputs differ in length along the batch: {size} and {len(tensor)}")
    if targets is not None:
        for tensor in flatten(targets, "targets")[0]:
            length = len(tensor) if tensor.dim() else 0
            if length != size:
                raise ConfigurationError(
                    f"inputs and targets must have the same length along the batch, got {size} and {length}"
                )
    return size


def make_inputs(inputs: Any, sizes: Sequence[int]) -> list[Payload]:
    """One payload per micro-batch, views of the caller's tensors; inputs of the model take no gradient."""
    tensors, single = flatten(inputs, "inputs")
    parts = zip(*(tensor.split(list(sizes)) for tensor in tensors), strict=True)
    flags = (False,) * len(tensors)
    return [Payload(tuple(part), single, flags) for part in parts]


def join_batches(parts: Sequence[Any]) -> Any:
    """The batch whose parts these are, in order: tensors or tuples of tensors."""
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts))
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def make_tasks(targets: Any, sizes: Sequence[int], terms: LossTerms, reduction: str) -> list[Task]:
    """What the last stage needs per micro-batch, for the loss of this batch: see :func:`count_tasks`, :func:`weigh`."""
    tasks = count_tasks(targets, sizes, terms, reduction)
    return tasks if reduction == "sum" else weigh(tasks, sum(task.factor for task in tasks))


def weigh(tasks: Sequence[Task], terms: float) -> list[Task]:
    """A mean loss over n_i terms counts n_i / ``terms``, those of the whole batch, of the batch's mean."""
    if not terms > 0:
        raise ConfigurationError("the targets of this batch hold no loss terms (every target is ignored)")
    return [Task(task.targets, task.factor / terms) for task in tasks]


def count_tasks(targets: Any, sizes: Sequence[int], terms: LossTerms, reduction: str) -> list[Task]:
    """The targets of each micro-batch, and over how many terms its loss is a mean; a summed loss counts whole."""
    tensors, single = flatten(targets, "targets")
    tensors = tuple(tensor.detach() for tensor in tensors)
    parts = list(zip(*(tensor.split(list(sizes)) for tensor in tensors), strict=True))
    pieces = [part[0] if single else tuple(part) for part in parts]
    if reduction == "sum":
        return [Task(piece, 1.0) for piece in pieces]
    return [Task(piece, float(terms(piece))) for piece in pieces]


def _setting(loss: Any, name: str, default: Any) -> Any:
    """A setting of a loss: an attribute of a loss module, or a keyword that functools.partial holds."""
    if isinstance(loss, functools.partial):
        return loss.keywords.get(name, _setting(loss.func, name, default))
    return getattr(loss, name, default)


def reduction_of(loss: Any) -> str:
    """ "mean" or "sum": how ``loss`` reduces its terms, read from its ``reduction`` where it has one."""
    reduction = _setting(loss, "reduction", "mean")
    if reduction not in ("mean", "batchmean", "sum"):
        raise ConfigurationError(f"the loss must be a scalar: reduction={reduction!r} is not; use 'mean' or 'sum'")
    return "sum" if reduction == "sum" else "mean"


def default_terms(loss: Any) -> LossTerms:
    """Counts what ``loss`` averages over: the elements of the targets.

    Those equal to its ``ignore_index`` do not count; class weights (``weight``, which is no parameter) do;
    ``reduction="batchmean"`` averages over sequences. What cannot be known is asked for: a plain function may ignore
    targets in its own way, so negative class numbers are refused there, and so are targets of several tensors, one of
    which may be a mask.
    """
    ignored, weight = _setting(loss, "ignore_index", None), _setting(loss, "weight", None)
    by_sequence = _setting(loss, "reduction", "mean") == "batchmean"

    def count(targets: Any) -> float:
        tensors = flatten(targets, "targets")[0]
        first: Tensor = tensors[0]
        if by_sequence:
            return float(len(first))
        if len(tensors) > 1:
            raise ConfigurationError(
                f"targets are a tuple of {len(tensors)} tensors, and which of them says over how many terms the loss "
                "takes its mean cannot be seen; pass loss_terms=, a function that counts them, such as "
                "lambda targets: targets[1].sum() for (labels, mask), or lambda targets: targets[0].numel()"
            )
        if first.is_floating_point() or first.is_complex():
            return float(first.numel())
        if ignored is None and bool((first < 0).any()):
            raise ConfigurationError(
                "targets hold negative class numbers, which losses leave out of their mean; pass a loss with "
                "ignore_index, such as nn.CrossEntropyLoss(), or loss_terms=, which counts the targets that count"
            )
        counted = first if ignored is None else first[first != ignored]
        if isinstance(weight, Tensor) and weight.dim() == 1 and not isinstance(weight, nn.Parameter):
            return float(weight.to(counted.device)[counted].sum())
        return float(counted.numel())

    return count
