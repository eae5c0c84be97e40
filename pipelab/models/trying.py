"""Trying out whether stages in a row are the model that they were cut from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.models.call import Call, as_tuple, one_or_all
from pipelab.models.cut import call_layer
from pipelab.models.watch import run_model, undisturbed

__all__ = ["difference", "has_nan", "in_a_row", "said"]


def in_a_row(stages: Sequence[nn.Module], inputs: tuple[Tensor, ...]) -> Any:
    """What the last stage returns. As on a wire, each stage gets tensors that share no memory."""
    x = one_or_all(inputs)
    for stage in stages:
        x = call_layer(stage, x.clone() if isinstance(x, Tensor) else tuple(tensor.clone() for tensor in x))
    return x


def difference(
    model: nn.Module,
    stages: Sequence[nn.Module],
    call: Call,
    tries: Sequence[tuple[tuple[Tensor, ...], bool]],
    *,
    exactly: bool = True,
) -> str | None:
    """How the stages in a row differ from the model, in outputs or in what they do to buffers; None if they do not.

    ``tries``: (inputs, whether in training mode). Without ``exactly`` they may differ by rounding.
    """
    for inputs, training in tries:
        mode = f"in {'training' if training else 'evaluation'} with {len(inputs[0])} sequences"
        found = []
        for stages_run in (False, True):
            with undisturbed(model, training=training), torch.no_grad():
                torch.manual_seed(0)
                try:
                    value = in_a_row(stages, inputs) if stages_run else run_model(model, call, inputs)
                except Exception as error:  # noqa: BLE001 (a forward that was cut short may stumble over anything)
                    if not stages_run:
                        break  # the model itself cannot do it: batch statistics of one sequence, say
                    return f"{said(error)}, {mode}"
                found.append((as_tuple(value), [buffer.clone() for buffer in model.buffers()]))
        if len(found) < 2:
            continue
        (value, buffers), (other, moved) = found
        if any(map(has_nan, value)):
            return f"the model's output on example_inputs holds nan {mode}, so nothing can be told"
        if len(value) != len(other) or not all(map(_same, value, other, repeat(exactly))):
            return f"outputs differ {mode}"
        if not all(map(_same, buffers, moved, repeat(exactly))):
            return f"buffers differ {mode}"
    return None


def has_nan(leaf: Any) -> bool:
    """Whether a tensor holds nan."""
    return isinstance(leaf, Tensor) and leaf.is_floating_point() and bool(leaf.isnan().any())


def said(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"


def _same(one: Tensor, other: Tensor, exactly: bool) -> bool:
    if exactly and one.device.type == "cpu":  # sums on a GPU have no fixed order
        return one.dtype == other.dtype and torch.equal(one, other)
    try:
        torch.testing.assert_close(one, other)
    except AssertionError:
        return False
    return True
