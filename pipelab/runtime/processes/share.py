"""What the caller of a pipeline in processes shares with one rank, tensor by tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.errors import ConfigurationError
from pipelab.runtime.device.payload import describe
from pipelab.runtime.processes.block import Block, copy_all
from pipelab.runtime.processes.rank import Table
from pipelab.runtime.setup.replicas import require_same

__all__ = ["Share", "as_parameters"]


@dataclass
class Share:
    """What is shared with one rank: its stages' tensors, here and in the block, and room for gradients."""

    table: Table
    block: Block
    grads: Block
    tensors: list[Tensor]
    leads: list[bool]
    """Whether a tensor counts here: in the first home of its stage, and not borrowed from another."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters among the tensors."""
        return [t for t, is_one in zip(self.tensors, self.table.parameter, strict=True) if is_one]  # type: ignore[misc]

    def take_up(self, now: list[Tensor], *, held: bool) -> None:
        """The caller's tensors as they are now.

        Buffers may be others than before; parameters only if nothing else holds the first (``held``). Raises
        ConfigurationError.
        """
        if len(now) != len(self.tensors):
            raise ConfigurationError(
                f"the model had {len(self.tensors)} parameters and buffers on this device when this Pipeline was made, "
                f"and has {len(now)}; make a new Pipeline"
            )
        if held:
            before = {id(tensor) for tensor, is_one in zip(self.tensors, self.table.parameter, strict=True) if is_one}
            named = {k: name for name, k in self.table.parameters}
            for k, (tensor, is_one) in enumerate(zip(now, self.table.parameter, strict=True)):
                if is_one and id(tensor) not in before:
                    name = named.get(k, "a tied one")
                    require_same({name: self.tensors[k]}, {name: tensor})
        self.tensors = now

    def fill(self) -> None:
        """The caller's tensors into the block."""
        for own, shared in zip(self.tensors, self.block.tensors, strict=True):
            if own.shape != shared.shape or own.dtype != shared.dtype:
                raise ConfigurationError(
                    f"the model has changed since this Pipeline was made: {describe([shared])} is now "
                    f"{describe([own])}; make a new Pipeline"
                )
        copy_all(self.block.beside(self.tensors))

    def take_back(self, grads: Sequence[Any] | None, *, parameters: bool) -> None:
        """Buffers that have changed and, after a step, new weights and gradients into the caller's tensors."""
        new = []
        told = zip(
            self.tensors, self.block.tensors, self.block.addresses, self.table.parameter, self.leads, strict=True
        )
        for own, shared, address, is_one, leads in told:
            if leads and own.data_ptr() != address and (parameters if is_one else not torch.equal(own.cpu(), shared)):
                new.append((shared, own))
        if grads is not None:
            leading = [leads for leads, is_one in zip(self.leads, self.table.parameter, strict=True) if is_one]
            for parameter, grad, shared, leads in zip(self.parameters, grads, self.grads.tensors, leading, strict=True):
                if not leads:
                    continue
                if grad is True:
                    parameter.grad = torch.empty_like(parameter, requires_grad=False)
                    new.append((shared, parameter.grad))
                else:
                    parameter.grad = None if grad is None else grad.to(parameter.device)
        copy_all(new)


def as_parameters(table: Table, shared: Sequence[Tensor]) -> list[Tensor]:
    """Parameters and buffers in the block itself, for stages that only a rank has."""
    told = zip(shared, table.parameter, table.requires_grad, strict=True)
    return [nn.Parameter(tensor, takes) if is_one else tensor for tensor, is_one, takes in told]
