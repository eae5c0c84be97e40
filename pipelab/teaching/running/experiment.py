"""One schedule on the worked example: predicted, run, measured, and compared with the unsplit model."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pipelab.models import TransformerLM, next_byte_loss, text_batch, transformer_stage
from pipelab.runtime import Pipeline, Reference, StepReport, gradient_error, unsplit_gradients
from pipelab.runtime.observer import Observer
from pipelab.schedules import Schedule
from pipelab.schedules.updates import part
from pipelab.simulation import Costs, simulate
from pipelab.simulation.links import INSTANT, Links
from pipelab.teaching.without_flush.training import plain_sgd, weight_error
from pipelab.timeline import Comparison, Timeline, compare

__all__ = ["Experiment", "Prepared", "Setting", "prepare", "run_experiment", "typical_costs"]

_TIMES = ("forward", "backward", "input_gradient", "weight_gradient")
BALANCED = ("naive", "gpipe", "1f1b", "interleaved", "pipedream", "vertical-sync", "2bw")
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Setting:
    """The model and the batch: by default the course's worked example, 48 layers and 64 sequences."""

    layers: int = 48
    width: int = 64
    heads: int = 4
    tokens: int = 32
    batch: int = 64
    dropout: float = 0.0
    dtype: str = "float32"
    seed: int = 0
    steps: int = 11
    device: str | None = None
    clock: str = "device"
    launch: str = "threads"
    links: Links = INSTANT
    verify: bool = True
    memory_limit: str | None = None

    @property
    def _sizes(self) -> tuple[Any, ...]:
        return (self.layers, self.width, self.heads, self.tokens, self.dropout, self.seed)

    def model(self) -> TransformerLM:
        """The unsplit model."""
        return TransformerLM(*self._sizes).to(DTYPES[self.dtype])

    def stage(self, stages: int, s: int) -> nn.Module:
        """Stage ``s`` of the same model, alone."""
        return transformer_stage(s, stages, *self._sizes).to(DTYPES[self.dtype])

    def data(self) -> tuple[Tensor, Tensor]:
        """The batch: inputs and targets."""
        return text_batch(0, self.batch, self.tokens, self.seed)


@dataclass(frozen=True)
class Prepared:
    """A model, a batch, and the unsplit model's results for it."""

    setting: Setting
    model: Any
    """The unsplit model, or what builds a stage where it lives."""
    inputs: Tensor
    targets: Tensor
    reference: Reference | None
    """None on ranks other than 0."""


@dataclass(frozen=True)
class Experiment:
    """The result: predicted and measured timelines, the report of the last step, the largest gradient error."""

    setting: Setting
    microbatches: int
    predicted: Timeline
    report: StepReport
    max_gradient_error: float | None
    """None on ranks other than 0, and if it was not asked for."""
    costs: Costs
    torch_devices: tuple[torch.device, ...]
    backend: str
    max_weight_error: float | None = None
    """Of a schedule without a flush, after a drain, against its formula computed in one process, in float64."""
    peak_weight_versions: tuple[int, ...] = ()
    """Of such a schedule: the most versions of its weights on each device."""

    @property
    def measured(self) -> Timeline:
        """The timeline that was read from the clock."""
        return self.report.timeline

    @property
    def difference(self) -> Comparison:
        """The measured timeline laid over the predicted one."""
        return compare(self.predicted, self.measured)

    def to_json(self) -> dict[str, Any]:
        """Plain data for ``--json``. ``difference``: measured less predicted, the makespan as a fraction of it."""
        schedule = self.measured.schedule
        measured = self.measured.figures() | {"peak_activation_bytes": list(self.report.peak_activation_bytes)}
        if any(self.report.peak_allocated_bytes):
            measured["peak_allocated_bytes"] = list(self.report.peak_allocated_bytes)
        result = {
            "schedule": schedule.name,
            "devices": schedule.devices,
            "microbatches": self.microbatches,
            "chunks": schedule.chunks,
            "recompute": "R" in schedule.ops,
            "layers": self.setting.layers,
            "batch": self.setting.batch,
            "dtype": self.setting.dtype,
            "launch": self.setting.launch,
            "backend": self.backend,
            "clock": self.setting.clock,
            "torch_devices": sorted({str(device) for device in self.torch_devices}),
            "loss": self.report.loss,
            "max_gradient_error": self.max_gradient_error,
            **self._without_flush(),
            **self._compression(),
            "predicted": self.predicted.figures()
            | {"costs": {name: cost for name in _TIMES if (cost := getattr(self.costs, name)) is not None}},
            "measured": measured,
            "difference": {
                "makespan": self.difference.makespan_ratio - 1,
                "bubble_fraction": self.difference.bubble_difference,
                "same_order": self.difference.same_order,
            },
        }
        plain: dict[str, Any] = _plain(result)
        return plain

    def _compression(self) -> dict[str, Any]:
        """Of the messages of the last step: their bytes before they were packed, and after."""
        found = self.report.compression
        return {} if found is None else {"compression": {"before": found.before, "after": found.after}}

    def _without_flush(self) -> dict[str, Any]:
        if not self.peak_weight_versions:
            return {}
        return {"max_weight_error": self.max_weight_error, "peak_weight_versions": list(self.peak_weight_versions)}


def prepare(setting: Setting, schedule: Schedule | None = None, rank: int | None = None) -> Prepared:
    """Build the model and the batch and run the unsplit model once, as the oracle.

    As ``rank`` of a group: the unsplit model is built on rank 0 alone, for that; each rank builds its own stages.
    """
    inputs, targets = setting.data()
    model, reference = None, None
    if not rank and (setting.verify or rank is None):
        model = setting.model()
    updates = schedule is not None and "U" in schedule.ops  # then there is no one gradient of the batch
    if model is not None and setting.verify and not updates:
        reference = unsplit_gradients(model, next_byte_loss, inputs, targets, seed=setting.seed, step=0)
    if rank is None:
        return Prepared(setting, model, inputs, targets, reference)
    assert schedule is not None
    return Prepared(setting, partial(setting.stage, schedule.stages), inputs, targets, reference)


def run_experiment(
    prepared: Prepared,
    schedule: Schedule,
    microbatches: int,
    *,
    told: Callable[[str], None] | None = None,
    monitor: Observer | None = None,
) -> Experiment:
    """Run ``steps`` steps and measure; predict from what one micro-batch cost alone, in between.

    ``told`` is called with the name of each piece before it begins: the profile, then each step. Without it rank 0
    shows a bar. ``monitor`` watches the steps.
    """
    setting = prepared.setting
    told = told or _silent
    updates = "U" in schedule.ops
    model = copy.deepcopy(prepared.model) if updates else prepared.model
    with Pipeline(
        model,
        schedule,
        loss=next_byte_loss,
        launch=setting.launch,
        clock=setting.clock,
        device=setting.device,
        links=setting.links,
        seed=setting.seed,
        window=max(setting.steps, 1),
        memory_limit=setting.memory_limit,
        optimizer=plain_sgd if updates else None,
        monitor=monitor,
    ) as pipeline:
        told("measuring one micro-batch")
        batch, alone = (prepared.inputs, prepared.targets), []
        for number in _steps(setting.steps, schedule.name, told is _silent and pipeline.rank == 0):
            if setting.clock != "unit" and number % 2 == 0:
                # In turns with the steps: a machine is not as fast in one second as in the next.
                alone.append(pipeline.profile(*batch, repeats=1))
            told(f"step {number + 1} of {setting.steps}")
            report = pipeline.step(*batch)
            if number == 0:  # the reference ran with the dropout of step 0
                found = pipeline.gather(pipeline.gradients()) if setting.verify and not updates else None
                loss = report.loss
        costs = _prediction_costs(schedule, typical_costs(alone), setting) if alone else pipeline.settings.unit_costs
        predicted = _predicted(schedule, costs, setting)
        error = None
        if found is not None and prepared.reference is not None:
            error = gradient_error(found, prepared.reference.gradients)
        last, places = replace(report, loss=loss), pipeline.torch_devices
        made = Experiment(setting, microbatches, predicted, last, error, costs, places, pipeline.backend)
        return _drained(made, pipeline, prepared) if updates else made


def _predicted(schedule: Schedule, costs: Costs, setting: Setting) -> Timeline:
    """A step; of a schedule without a flush the last one, of a pipeline that is full by then."""
    if schedule.updating is None:
        return simulate(schedule, costs, batch=setting.batch)
    step = part(schedule, setting.steps - 1)
    return simulate(step, costs, batch=setting.batch * (step.microbatches // schedule.microbatches), check=False)


def _drained(made: Experiment, pipeline: Pipeline, prepared: Prepared) -> Experiment:
    """The experiment with what was trained, once nothing is on its way any more. Every rank takes part."""
    setting, schedule = made.setting, pipeline.schedule
    pipeline.drain()
    trained = pipeline.gather(pipeline.state_dict()) if setting.verify else None
    error = None
    if trained is not None and schedule.updating is not None and not setting.dropout:
        batches = [(prepared.inputs, prepared.targets)] * setting.steps
        error = weight_error(trained, setting.model(), schedule, batches, setting.layers)
    return replace(made, max_weight_error=error, peak_weight_versions=made.report.weight_versions)


def typical_costs(profiles: Sequence[Costs]) -> Costs:
    """Each stage's median times over some profiles, its bytes as they were last."""
    found: dict[str, Any] = {}
    for name in _TIMES:
        rows = [getattr(one, name) for one in profiles]
        if rows[0] is not None:
            found[name] = [median(times) for times in zip(*rows, strict=True)]
    return replace(profiles[-1], **found)


def _prediction_costs(schedule: Schedule, profile: Costs, setting: Setting) -> Costs:
    """One number for all devices where lessons work out the bubble: the balanced pipeline, in this machine's seconds.

    Elsewhere each stage has its own costs. Stage 0 needs no gradient of its input, so where backwards are split all of
    its backward is W. A prediction that did not know would be wrong about half of the bubble.
    """
    if schedule.name not in BALANCED:
        return replace(profile, links=setting.links.unpacked)

    def mean(values: Any) -> float:
        return float(sum(values)) / schedule.devices

    sizes = [size for size in profile.message_bytes if size] if isinstance(profile.message_bytes, list) else []
    return Costs(
        forward=mean(profile.forward),
        backward=mean(profile.backward),
        message_bytes=sum(sizes) / len(sizes) if sizes else 0.0,
        activation_bytes=mean(profile.activation_bytes),
        input_bytes=profile.input_bytes,
        links=setting.links.unpacked,
        unit="s",
    )


def _silent(piece: str) -> None:
    """Tells nobody."""


def _steps(count: int, name: str, progress: bool) -> Iterator[int]:
    return iter(tqdm(range(count), desc=f"{name:<12}", unit="step", disable=not progress, leave=False))


def _plain(value: Any) -> Any:
    """Whole floats as ints where they count something, and no infinities: JSON has none."""
    if isinstance(value, dict):
        counted = ("peak_microbatches", "peak_sequences")
        return {k: [_whole(x) for x in v] if k in counted else _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _whole(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value
