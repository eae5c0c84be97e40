"""Fully sharded stages: each replica keeps a part of each weight, by FSDP2 (``torch.distributed.fsdp.fully_shard``).

A layer's weights are gathered before its first forward of a step, or, with ``again``, before each forward and each
backward and let go of after it. Gradients are summed over micro-batches here, and over replicas once, with the last
backward of a stage, when each replica keeps the part that its optimizer steps (ZeRO, arXiv 1910.02054).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from pipelab.errors import ConfigurationError
from pipelab.models.shards import local

__all__ = ["Sharded"]


class Sharded:
    """Shards ``stage`` over ``mesh``, in place and layer by layer, and tells it what it has to know in a step.

    ``again``: weights are gathered for each forward and backward. All replicas make the same calls in the same order.
    """

    def __init__(self, stage: nn.Module, mesh: DeviceMesh, *, again: bool) -> None:
        self.again = again
        for tensor in (*stage.parameters(), *stage.buffers()):  # replicas start alike
            dist.broadcast(local(tensor.detach()), group=mesh.get_group(), group_src=0)
        # What a stage gives is detached, and nothing works in place on it.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view", category=UserWarning)
        layers: list[Any] = list(_layers(stage))
        for layer in layers:
            kinds = sorted({str(p.dtype).removeprefix("torch.") for p in layer.parameters()})
            if len(kinds) > 1:
                raise ConfigurationError(
                    f"shard gathers the weights of a layer in one piece, and {type(layer).__name__} has parameters of "
                    f"{' and '.join(kinds)}; give each layer one dtype, or leave shard out"
                )
        for module in (*layers, stage):
            fully_shard(module, mesh=mesh, reshard_after_forward=again)
        for before, layer in zip([*layers[:1], *layers], layers, strict=False):
            # By itself FSDP2 would go on from the first layer to what ran before it: an earlier micro-batch's last one.
            layer.set_modules_to_backward_prefetch([before])
        self._modules = [module for module in stage.modules() if isinstance(module, FSDPModule)]
        for module in self._modules:
            module.set_gradient_divide_factor(1.0)  # losses are weighted by the whole batch: a sum, and no mean
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other, which float32 would get

    def begin(self, *, training: bool) -> None:
        """A step begins, or an evaluation, after which weights are parts again."""
        for module in self._modules:
            module.set_reshard_after_forward(self.again or not training, recurse=False)
        self._tell(last=False)

    def before_last(self) -> None:
        """The next backward is the stage's last one in this step."""
        self._tell(last=True)

    def rest(self) -> None:
        """Nothing is gathered any more, also where no backward came."""
        for module in self._modules:
            module.reshard()

    def _tell(self, *, last: bool) -> None:
        self._modules[0].set_requires_gradient_sync(last)
        self._modules[0].set_is_last_backward(last)
        self._modules[0].set_reshard_after_backward(last or self.again)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """What stands in its outermost lists, if it has parameters."""
    for child in module.children():
        if not isinstance(module, nn.ModuleList | nn.Sequential):
            yield from _layers(child)
        elif next(child.parameters(), None) is not None:
            yield child
