"""Tensor parallelism: the matrices within a stage are split over the ``tp`` axis, by ``torch.distributed.tensor``.

Columns of a first matrix and rows of the second that takes what it gives (Megatron-LM, arXiv 1909.08053, section 3)::

    x --> qkv, columns: whole heads --> attention of these heads --> out, rows --> all-reduce --> + x
    x --> up, columns --> gelu ------------------------------------> down, rows --> all-reduce --> + x

So a layer sums twice in its forward, and twice in its backward (the gradients of both inputs). Norms, embedding and
head are whole in each process; what comes and goes between stages is, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatch
from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    PrepareModuleOutput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from pipelab.errors import ConfigurationError
from pipelab.models.cut import NamedStage
from pipelab.models.shards import is_split
from pipelab.models.transformer import Block, Embedding, Head

__all__ = ["TensorPlan", "add_partial", "parallelize", "sequence_parallel", "tensor_parallel"]

TensorPlan = Mapping[str, ParallelStyle] | Callable[[nn.Module, DeviceMesh], object]
"""Styles of ``torch.distributed.tensor.parallel`` by names in the unsplit model, or what splits a stage itself.

A name may be a pattern: ``"layers.*.up"``.
"""


def parallelize(stage: nn.Module, mesh: DeviceMesh, plan: TensorPlan | None = None) -> None:
    """Split a stage over ``mesh``, in place; all its processes make this call.

    Without a ``plan`` it is a stage of the course's transformer. Raises ConfigurationError if it cannot be split.
    """
    if plan is None:
        tensor_parallel(stage, mesh)
    elif callable(plan):
        plan(stage, mesh)
    else:
        for name, module in _named(stage):
            style = next((plan[pattern] for pattern in plan if fnmatch(name, pattern)), None)
            if style is not None:
                parallelize_module(module, mesh, style)
    if not any(map(is_split, stage.parameters())):
        has = [name for name, module in _named(stage) if next(module.parameters(recurse=False), None) is not None]
        raise ConfigurationError(
            f"the tensor plan splits nothing in a stage that has {', '.join(has[:4])}; give tensor_plan= with such "
            "names, {'layers.*.up': ColwiseParallel(), 'layers.*.down': RowwiseParallel()}, or a mesh without 'tp'"
        )


def tensor_parallel(stage: nn.Module, mesh: DeviceMesh) -> None:
    """Split the layers of the course's transformer by columns and rows: a TensorPlan."""
    for block in _blocks(stage, mesh):
        plan = {"qkv": ColwiseParallel(), "out": RowwiseParallel(), "up": ColwiseParallel(), "down": RowwiseParallel()}
        parallelize_module(block, mesh, plan)


def sequence_parallel(stage: nn.Module, mesh: DeviceMesh) -> None:
    """The same, and what lies between is split along the sequence (arXiv 2205.05198): a TensorPlan.

    An all-reduce becomes a reduce-scatter after the rows and an all-gather before the columns. Norms, dropout and
    messages between stages have a part of each sequence, so its length must be divisible by the size of ``mesh``.
    """
    along = Shard(1)
    for block in _blocks(stage, mesh):
        first, second = ColwiseParallel(input_layouts=along), RowwiseParallel(output_layouts=along)
        norm = SequenceParallel()
        plan = {"norm1": norm, "qkv": first, "out": second, "norm2": norm, "up": first, "down": second}
        parallelize_module(block, mesh, plan)
        block.drop1.part = block.drop2.part = mesh.get_local_rank()
    for module in stage.modules():
        if isinstance(module, Embedding):
            module.register_forward_pre_hook(_divides(mesh.size()))
            into = PrepareModuleOutput(output_layouts=Replicate(), desired_output_layouts=along)
            parallelize_module(module, mesh, into)
        elif isinstance(module, Head):
            out = PrepareModuleInput(input_layouts=along, desired_input_layouts=Replicate(), use_local_output=True)
            parallelize_module(module, mesh, out)


def add_partial(parameters: Iterable[nn.Parameter]) -> None:
    """Gradients of which each process has a summand, as those of norms in a sequence that is split, are summed."""
    for parameter in parameters:
        grad: Any = parameter.grad
        if is_split(grad) and any(placement.is_partial() for placement in grad.placements):
            parameter.grad = grad.redistribute(placements=parameter.placements)  # type: ignore[attr-defined]


def _named(stage: nn.Module) -> list[tuple[str, nn.Module]]:
    """(name in the unsplit model, module)."""
    named = isinstance(stage, NamedStage)
    return [(stage.unsplit_name(n) if named and "." in n else n, m) for n, m in stage.named_modules()]  # type: ignore[operator]


def _blocks(stage: nn.Module, mesh: DeviceMesh) -> Iterator[Block]:
    parts = mesh.size()
    for block in [module for module in stage.modules() if isinstance(module, Block)]:
        if block.heads % parts:
            near = [n for n in range(1, block.heads + 1) if block.heads % n == 0]
            raise ConfigurationError(
                f"heads must be divisible by tp, got {block.heads} heads and tp = {parts}; take tp = "
                f"{min(near, key=lambda n: abs(n - parts))}, or {-(-block.heads // parts) * parts} heads"
            )
        yield block


def _divides(parts: int) -> Callable[[nn.Module, Any], None]:
    def check(module: nn.Module, args: Any) -> None:
        tokens = args[0].shape[1]
        if tokens % parts:
            raise ConfigurationError(
                f"sequence_parallel gives each of {parts} processes as many tokens, got sequences of {tokens}; take "
                f"{-(-tokens // parts) * parts}, or tensor_parallel"
            )

    return check
