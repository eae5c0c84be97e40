"""PyTorch's own pipeline runtime, driven by a schedule's CSV: a second engine for the same table.

It shares nothing with ``Pipeline`` but the table, the cut and the way losses are weighed, so each is a test of the
other; and what runs here runs in systems that read such tables into ``torch.distributed.pipelining``.

Tested with torch 2.13.0. ``_PipelineScheduleRuntime`` and its ``_load_csv`` are private there and may go away: where
they are missing, ConfigurationError says so.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipelab.errors import ConfigurationError, ScheduleError
from pipelab.models.cut import call_layer
from pipelab.models.dropout import dropout_key
from pipelab.runtime.device.payload import describe, flatten
from pipelab.runtime.device.stage import Task
from pipelab.runtime.setup.assembly import make_stages, warn_of_batch_statistics
from pipelab.runtime.setup.by_name import named_parameters
from pipelab.runtime.setup.devices import DeviceChoice
from pipelab.runtime.setup.microbatches import LossTerms, batch_size, default_terms, make_tasks, reduction_of
from pipelab.runtime.setup.settings import Settings
from pipelab.schedules.action import actions_of
from pipelab.schedules.schedule import Schedule

__all__ = ["PyTorchRuntime", "pytorch_runtime"]

TESTED = "2.13.0"


def pytorch_runtime(
    model: nn.Module | Callable[[int], nn.Module],
    schedule: Schedule,
    *,
    loss: Callable[[Any, Any], Tensor],
    cuts: Sequence[int] | None = None,
    group: Any = None,
    device: DeviceChoice = None,
    loss_terms: LossTerms | None = None,
    seed: int = 0,
) -> PyTorchRuntime:
    """PyTorch's runtime with ``schedule`` loaded into it. Called on every rank, as under torchrun: one per device.

    The arguments are those of ``Pipeline``, and mean the same. Joins the world first, if that has not been done.
    Raises ConfigurationError or ScheduleError before anything starts for what PyTorch's runtime cannot do: R and U,
    a stage on several devices, W without I, micro-batches of different sizes, a last stage that does not take its
    micro-batches in order, I and W behind frozen stages, ranks that share a GPU.
    """
    settings = Settings(schedule, loss=loss, loss_terms=loss_terms, seed=seed)
    if loss is None:
        raise ConfigurationError("PyTorch's runtime trains and needs loss=..., such as nn.CrossEntropyLoss()")
    table = _table_for_torch(schedule)
    stage_class, runtime_class = _private_names()

    from pipelab.runtime.processes.agreement import require_agreement
    from pipelab.runtime.processes.join import in_group, join

    if not in_group():
        raise ConfigurationError(
            f"PyTorch's runtime needs one process per device, and this one was started alone; start {schedule.devices}"
            f": torchrun --standalone --nproc-per-node {schedule.devices} FILE.py"
        )
    peers = join(schedule.devices, device, group)
    try:
        require_agreement(peers, settings, model, cuts)
        parts = peers.agree_own(lambda: make_stages(model, schedule, cuts, schedule.stages_on(peers.rank)))
        stages = parts.stages
        if parts.tied:
            raise ConfigurationError(
                f"PyTorch's runtime trains each stage by itself, and {' = '.join(parts.tied[0])} is one parameter of "
                "several stages; untie it, or use Pipeline, which trains it as one"
            )
        _refuse_shared_gpus(peers.places, peers.backend)
        _refuse_lost_weights(schedule, [s for learning in peers.exchange(_learning(stages)) for s in learning])
        warn_of_batch_statistics(stages, schedule.microbatches)
        own = PyTorchRuntime(settings, peers, stages)
        peers.agree_own(lambda: own._load(stage_class, runtime_class, table, group))
    except BaseException:
        peers.close()
        raise
    return own


class PyTorchRuntime:
    """One rank's part of a pipeline that PyTorch runs; see ``pytorch_runtime``, which makes it.

    ``runtime`` is the ``_PipelineScheduleRuntime`` with the table loaded, ``stages`` the modules that live here.
    """

    runtime: Any

    def __init__(self, settings: Settings, peers: Any, stages: Mapping[int, nn.Module]) -> None:
        assert settings.loss is not None
        self.schedule, self.stages = settings.schedule, dict(stages)
        self.step_number = 0
        """Number of the next step; keys the dropout."""
        self._seed, self._loss = settings.seed, settings.loss
        self._terms = default_terms(settings.loss) if settings.loss_terms is None else settings.loss_terms
        self._reduction = reduction_of(settings.loss)
        self._peers, self._place = peers, peers.places[peers.rank]
        self._called = {s: _Called(stage.to(self._place), s) for s, stage in stages.items()}
        self._tasks: list[Task] = []
        self._fixed: Any = None

    @property
    def rank(self) -> int:
        """This process's place in the pipeline."""
        rank: int = self._peers.rank
        return rank

    def step(self, inputs: Any = None, targets: Any = None) -> float | None:
        """All micro-batches forward and backward; the loss where the last stage lives, None elsewhere.

        Inputs are needed where stage 0 lives, targets where the last stage lives. The loss is the mean over the whole
        batch and the gradients are its gradients; they stay in ``.grad`` until the next step. There is no update:
        step an optimizer over ``named_parameters()``.

        Raises ConfigurationError on all ranks before anything starts. A stage that raises later ends its own rank
        only; torchrun then ends the others.
        """
        calls = self._peers.agree(lambda: self._look(inputs, targets))
        batch = self._same_batch([batch for batch, _ in calls])
        self._peers.agree(lambda: self._require_same_shapes((batch, calls)))
        m = self.schedule.microbatches
        for _, parameter in self.named_parameters():
            parameter.grad = None
        for module in self._called.values():
            module.key = (self._seed, self.step_number)
        tensors = flatten(inputs, "inputs")[0] if 0 in self.stages else ()
        numbers = torch.arange(m)
        losses: list[Tensor] = []
        self.runtime.step(
            *(tensor.detach().to(self._place) for tensor in tensors),
            first_sequence=numbers * (batch // m),
            target=numbers if self._last else None,
            losses=losses,
            return_outputs=False,
        )
        self.step_number += 1
        self._tasks = []
        return float(torch.stack([loss.detach().double() for loss in losses]).sum()) if self._last else None

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """(name in the unsplit model, parameter) of the stages that live here."""
        for s, stage in self.stages.items():
            yield from named_parameters(s, stage)

    def gradients(self) -> dict[str, Tensor]:
        """The gradients of the last step by name, of the stages that live here; zeros where a parameter got none."""
        return {
            name: torch.zeros_like(p) if p.grad is None else p.grad
            for name, p in self.named_parameters()
            if p.requires_grad
        }

    def close(self) -> None:
        """Let go of the connections by which ranks agree."""
        self._peers.close()

    def __enter__(self) -> PyTorchRuntime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _load(self, stage_class: Any, runtime_class: Any, table: str, group: Any) -> None:
        """Make PyTorch's runtime over the stages that live here, with the table in it."""
        of, place = self.schedule, self._place
        stages = [stage_class(called, s, of.stages, place, group=group) for s, called in self._called.items()]
        # Gradients are not scaled by 1 / m there: the loss comes weighed.
        self.runtime = runtime_class(stages, of.microbatches, loss_fn=self._weighed_loss, scale_grads=False)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "table.csv"
            file.write_text(table, encoding="ascii")
            try:
                self.runtime._load_csv(str(file), format="compute_only")
            except (AssertionError, RuntimeError, ValueError) as error:
                reason = str(error).splitlines()[0]
                raise ScheduleError(f"PyTorch's loader refuses schedule '{of.name}': {reason}") from error

    @property
    def _last(self) -> bool:
        return self.schedule.stages - 1 in self.stages

    def _look(self, inputs: Any, targets: Any) -> tuple[int | None, Any]:
        """What this rank was given: the length of the batch, and the shapes and dtypes of the inputs."""
        first = 0 in self.stages
        if self._last and targets is None:
            raise ConfigurationError("the last stage lives on this rank: step needs targets here")
        batch = None if not first and targets is None else batch_size(inputs, targets, needs_inputs=first)
        if batch is None:
            return None, None
        sizes = self.schedule.microbatch_sizes(batch)
        if len(set(sizes)) > 1:
            m = len(sizes)
            raise ConfigurationError(
                f"PyTorch's runtime needs micro-batches of one size: a batch of {batch} is cut into {m} of "
                f"{min(sizes)} and {max(sizes)}; try a batch of {batch - batch % m} or {batch - batch % m + m}"
            )
        if self._last:
            self._tasks = make_tasks(targets, sizes, self._terms, self._reduction)
            empty = [i for i, task in enumerate(self._tasks) if not task.factor]
            if empty:
                raise ConfigurationError(f"micro-batch {empty[0]} holds no loss terms: all its targets are ignored")
        return batch, describe([t[: sizes[0]] for t in flatten(inputs, "inputs")[0]]) if first else None

    def _same_batch(self, batches: Sequence[int | None]) -> int:
        known = [(r, batch) for r, batch in enumerate(batches) if batch is not None]
        rank, batch = known[0]
        for other, length in known:
            if length != batch:
                raise ConfigurationError(
                    f"the batch holds {batch} sequences on rank {rank} and {length} on rank {other}"
                )
        assert batch is not None
        return batch

    def _require_same_shapes(self, told: Any) -> None:
        """PyTorch keeps one buffer per message, made in the first step."""
        if self._fixed is not None and told != self._fixed:
            (batch, calls), (before, calls_before) = told, self._fixed
            given, fixed = (next((s for _, s in c if s is not None), "") for c in (calls, calls_before))
            raise ConfigurationError(
                f"PyTorch's runtime fixes the shapes of messages in its first step: a micro-batch was {fixed} of a "
                f"batch of {before}, now {given} of {batch}; make a second runtime for other shapes"
            )
        self._fixed = told

    def _weighed_loss(self, output: Any, microbatch: Tensor) -> Tensor:
        """A micro-batch's part of the batch's loss. In place of targets PyTorch passes on the micro-batch's number."""
        task = self._tasks[int(microbatch)]
        targets = task.targets
        home = self._place
        placed = targets.to(home) if isinstance(targets, Tensor) else tuple(tensor.to(home) for tensor in targets)
        return self._loss(output, placed) * task.factor


class _Called(nn.Module):
    """A stage as PyTorch calls it: its input's tensors one by one, and beside them which sequences they are."""

    def __init__(self, stage: nn.Module, index: int) -> None:
        super().__init__()
        self.stage, self.index = stage, index
        self.key = (0, 0)
        self._asked = False

    def forward(self, *tensors: Tensor, first_sequence: Tensor) -> Any:
        """The stage's output, a tensor or a tuple of tensors."""
        if not self._asked:
            return self._answer_shapes(tensors, first_sequence)
        return self._run(tensors, first_sequence)

    def _answer_shapes(self, tensors: Sequence[Tensor], first_sequence: Tensor) -> Any:
        """PyTorch first asks each stage once for shapes, with memory as it finds it.

        Whole numbers become zeros, which every embedding knows, and copies of the running statistics take the blow.
        """
        self._asked = True
        usable = tuple(t if t.is_floating_point() or self.index == 0 else torch.zeros_like(t) for t in tensors)
        buffers = {f"stage.{name}": buffer.clone() for name, buffer in self.stage.named_buffers()}
        return torch.func.functional_call(self, buffers, usable, {"first_sequence": first_sequence})

    def _run(self, tensors: Sequence[Tensor], first_sequence: Tensor) -> Any:
        # Copies, so that a layer that works in place spoils no leaf and no neighbour's output.
        given = tuple(tensor.clone() for tensor in tensors)
        with dropout_key(*self.key, int(first_sequence)):
            value = call_layer(self.stage, given[0] if len(given) == 1 else given)
        outputs, single = flatten(value, f"the output of stage {self.index}")
        # Copies again: gloo and NCCL send dense tensors, and I detaches outputs in place that W may yet want.
        sent = tuple(output.clone(memory_format=torch.contiguous_format) for output in outputs)
        return sent[0] if single else sent


def _table_for_torch(schedule: Schedule) -> str:
    """The CSV. Raises ScheduleError for tables that PyTorch's runtime does not run, or runs wrongly."""
    if schedule.forward_only:
        raise ScheduleError(
            f"schedule '{schedule.name}' has no backward, and PyTorch's loader wants one for every forward; "
            "Pipeline.evaluate runs it"
        )
    table = schedule.to_csv(dialect="torch")
    if len(set(schedule.weights)) > 1:
        raise ScheduleError(
            f"PyTorch's runtime needs micro-batches of one size, schedule '{schedule.name}' has weights "
            f"{schedule.weights}; leave the weights out, and choose a batch that m = {schedule.microbatches} divides"
        )
    last = schedule.stages - 1
    for r, program in enumerate(schedule.programs):
        if not schedule.stages_on(r):
            raise ScheduleError(f"device {r} holds no stage: PyTorch's runtime needs one on every rank")
        begun: set[tuple[int, int]] = set()
        forwards = 0
        for position, slot in enumerate(program):
            for action in actions_of(slot):
                key = (action.stage, action.microbatch)
                where = f"device {r}, position {position}: {action}"
                if action.op == "I":
                    begun.add(key)
                if action.op == "W" and key not in begun:
                    raise ScheduleError(
                        f"{where} has no {action.stage}I{action.microbatch} before it; PyTorch's loader wants I and W "
                        f"in pairs: write {action.stage}B{action.microbatch} in place of a lone W"
                    )
                if action.op == "F" and action.stage == last:
                    if action.microbatch != forwards:
                        raise ScheduleError(
                            f"{where} comes where {last}F{forwards} should: PyTorch's runtime finds a micro-batch's "
                            "loss by the order of the last stage's forwards, which must be 0, 1, 2, ..."
                        )
                    forwards += 1
    return table


def _learning(stages: Mapping[int, nn.Module]) -> list[int]:
    """The stages with a parameter that takes a gradient."""
    return [s for s, stage in stages.items() if any(parameter.requires_grad for parameter in stage.parameters())]


def _refuse_lost_weights(schedule: Schedule, learning: Sequence[int]) -> None:
    """Raise ConfigurationError where W would leave out gradients, or where there are none at all.

    PyTorch's W starts where I has passed. Behind frozen stages nothing takes an input gradient, I passes nowhere, and
    W would leave the gradients empty without a word.
    """
    if not learning:
        raise ConfigurationError("no parameter takes a gradient, all are frozen")
    first = min(learning)
    split = {action.stage for _, _, action in schedule.actions() if action.op == "W"}
    if first > 0 and first in split:
        raise ConfigurationError(
            f"stages 0..{first - 1} are frozen, and stage {first} splits its backward: PyTorch's W would leave its "
            f"gradients out; write {first}B in place of {first}I and {first}W, or cut so that stage 0 learns"
        )


def _refuse_shared_gpus(places: Sequence[torch.device], backend: str) -> None:
    if backend != "nccl" and any(place.type == "cuda" for place in places):
        raise ConfigurationError(
            f"PyTorch's runtime sends between GPUs with NCCL, which needs a GPU for each rank; the ranks have "
            f"{', '.join(map(str, places))}; use device='cpu', or Pipeline, whose ranks can share a GPU"
        )


def _private_names() -> tuple[Any, Any]:
    """PipelineStage and _PipelineScheduleRuntime. Raises ConfigurationError where this torch has them not."""
    if not dist.is_available():
        raise ConfigurationError("this torch was built without torch.distributed; Pipeline's threads do without")
    try:
        from torch.distributed.pipelining import PipelineStage
        from torch.distributed.pipelining.schedules import _PipelineScheduleRuntime

        _PipelineScheduleRuntime._load_csv  # noqa: B018
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"torch {torch.__version__} has no _PipelineScheduleRuntime with _load_csv: they are private in "
            f"torch.distributed.pipelining; this was tested with torch {TESTED}"
        ) from error
    return PipelineStage, _PipelineScheduleRuntime
