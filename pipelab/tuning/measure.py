"""Takes a cost profile: runs micro-batches of several sizes through the stages, one device at work at a time."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pipelab.errors import ConfigurationError, StageError, whole_number
from pipelab.models.cut import sections_of
from pipelab.models.split import SplitModel
from pipelab.runtime.measuring.microbatch_costs import MicrobatchCosts
from pipelab.runtime.measuring.profile import first_sequences, one_pass
from pipelab.runtime.pipeline import Pipeline
from pipelab.runtime.setup.assembly import make_stages
from pipelab.runtime.setup.devices import DeviceChoice
from pipelab.runtime.setup.microbatches import LossTerms, batch_size
from pipelab.runtime.setup.settings import OptimizerFactory
from pipelab.schedules.action import Action, actions_of
from pipelab.schedules.catalogue import round_robin
from pipelab.schedules.schedule import Schedule
from pipelab.simulation.links import Links
from pipelab.tuning.candidates import Candidate
from pipelab.tuning.lines import Line, fit_line
from pipelab.tuning.profile import CostProfile, StageProfile
from pipelab.tuning.workload import Model, Workload

__all__ = ["Run", "Runner", "default_sizes", "profile_costs", "profile_layers"]

RUN = 4
"""About how many layers a run has that is profiled as one stage, too."""


def default_sizes(batch: int) -> tuple[int, ...]:
    """1, 2, 4, 8, ... sequences, up to half of the batch: larger ones lie on the same line, and take long."""
    sizes = [1]
    while sizes[-1] * 4 <= batch:
        sizes.append(sizes[-1] * 2)
    return tuple(sizes) if len(sizes) > 1 else (1, min(2, batch))


def profile_costs(
    model: Model,
    inputs: Any,
    targets: Any,
    *,
    loss: Callable[[Any, Any], Tensor],
    devices: int = 4,
    chunks: Sequence[int] = (1, 2),
    sizes: Sequence[int] | None = None,
    optimizer: OptimizerFactory | None = None,
    launch: str = "threads",
    device: DeviceChoice = None,
    loss_terms: LossTerms | None = None,
    recompute: bool = True,
    split: bool = True,
    repeats: int = 5,
    seed: int = 0,
    cuts: Mapping[int, Sequence[int]] | None = None,
    progress: bool = True,
) -> CostProfile:
    """Measure what the stages of ``model`` cost, cut into p * v stages for each v of ``chunks``.

    For each of ``sizes`` a micro-batch goes through all stages and back, ``repeats`` times after a warm-up. Sizes are
    numbers of sequences from the front of ``inputs`` and ``targets`` (default: powers of two up to half of them). They
    take turns, so that a slow minute affects all of them. Activations are kept; with ``recompute``, another pass
    recomputes them, and with ``split`` one cuts each backward in two, I and W. Sizes that do not run here (too little
    memory, too few sequences for batch statistics) are left out, if at least two remain. Lines are fitted to the
    medians. ``cuts[n]`` says where the model is cut into n stages. No weight changes. The state and time of
    ``optimizer`` are measured on a copy. The other arguments are those of ``Pipeline``.

    Raises ConfigurationError if the model cannot run on this device.
    """
    devices = whole_number("devices", "p", devices)
    work = Workload(model, inputs, targets, loss, launch, device, loss_terms, seed, cuts or {})
    tables = [_empty(round_robin(devices, v)) for v in sorted({whole_number("chunks", "v", v) for v in chunks})]
    how: dict[str, Any] = {"optimizer": optimizer, "recompute": recompute, "split": split}
    return _profile(work, devices, tables, sizes, repeats=repeats, progress=progress, **how)


def profile_layers(
    model: nn.Module | SplitModel,
    inputs: Any,
    targets: Any,
    *,
    loss: Callable[[Any, Any], Tensor],
    sizes: Sequence[int] | None = None,
    optimizer: OptimizerFactory | None = None,
    launch: str = "threads",
    device: DeviceChoice = None,
    loss_terms: LossTerms | None = None,
    recompute: bool = False,
    split: bool = False,
    repeats: int = 5,
    seed: int = 0,
    progress: bool = True,
) -> CostProfile:
    """Measure what each layer of ``model`` costs alone: what ``plan_cuts`` plans with.

    The layers are what ``Pipeline(cuts=...)`` can cut between; the first one comes with all that goes before it, such
    as an embedding, and the last one with the head and the loss. Of a model without visible layers give
    ``split_model(model, example_inputs, stages)`` with as many stages as there are layers. The profile has the model in
    one piece, in runs of about four layers, and in one stage a layer, for one device. The other arguments are those of
    ``profile_costs``; recomputation and the halves of backwards are measured only if they are asked for.
    """
    if isinstance(model, SplitModel):
        model = nn.Sequential(*model)
    if not isinstance(model, nn.Module):
        raise ConfigurationError(
            f"layers are profiled of an nn.Module or of what split_model made, got {type(model).__name__}; a function "
            "build_stage(s) does not say where layers end"
        )
    layers = len(sections_of(model).layers)
    if layers < 2:
        raise ConfigurationError(f"a model of {layers} layer cannot be cut; give one of two layers or more")
    work = Workload(model, inputs, targets, loss, launch, device, loss_terms, seed)
    cuts = sorted({1, max(layers // RUN, 1), layers})
    tables = [_empty(tuple((s % 2,) for s in range(cut))) for cut in cuts]  # in turns, so that each layer sends
    how: dict[str, Any] = {"optimizer": optimizer, "recompute": recompute, "split": split}
    return _profile(work, 1, tables, sizes, repeats=repeats, progress=progress, **how)


def _profile(
    work: Workload,
    devices: int,
    empty: Sequence[Schedule],
    sizes: Sequence[int] | None = None,
    *,
    optimizer: OptimizerFactory | None = None,
    recompute: bool,
    split: bool,
    repeats: int = 5,
    progress: bool = True,
) -> CostProfile:
    """The profile of a model cut as each of the ``empty`` tables says."""
    inputs, repeats = work.inputs, whole_number("repeats", "", repeats)
    length = batch_size(inputs, work.targets)
    if length < 2:
        raise ConfigurationError(
            f"a cost profile needs micro-batches of two sizes, and the batch has {length} sequence"
        )
    sizes = default_sizes(length) if sizes is None else tuple(sizes)
    wrong = [size for size in sizes if not 1 <= size <= length]
    if wrong or len(set(sizes)) < 2:
        raise ConfigurationError(
            f"sizes must be two or more different numbers of sequences from 1 to {length}, got {tuple(sizes)}; try "
            f"{default_sizes(max(length, 2))}"
        )
    stages: dict[int, tuple[StageProfile, ...]] = {}
    messages: list[tuple[float, float]] = []
    total = len(empty) * (1 + recompute + split) * (repeats + 1) * len(sizes)
    bar = tqdm(total=total, desc="profile", unit="pass", disable=not progress, leave=False)
    places: set[str] = set()
    with bar:
        for table in empty:
            plain = one_pass(table)
            found: dict[str, list[MicrobatchCosts]] = {}
            tables = {"kept": plain}
            tables |= {"recomputed": plain.with_recompute()} if recompute else {}
            tables |= {"halved": _halved(plain)} if split else {}
            for name, table in tables.items():
                with work.pipeline(table, optimizer=optimizer if table is plain else None) as pipeline:
                    places |= set(map(str, pipeline.torch_devices))
                    found[name] = _passes(pipeline, work, sizes, repeats, bar)
            stages[plain.stages] = tuple(_stage(s, **found) for s in range(plain.stages))
            messages += [message for costs in found["kept"] for message in costs.messages]
    tensors = inputs if isinstance(inputs, Tensor) else inputs[0]
    whole_numbers = not (tensors.is_floating_point() or tensors.is_complex())
    tokens = int(tensors.shape[1]) if whole_numbers and tensors.dim() == 2 else None
    about = {
        "devices": sorted(places),
        "launch": work.launch,
        "torch": torch.__version__,
        "machine": _machine(sorted(places)),
        "sizes": list(sizes),
    }
    return CostProfile(devices, stages, _link(messages), tokens, about)


def _empty(placement: tuple[tuple[int, ...], ...]) -> Schedule:
    return Schedule("profile", ((),) * (max(placement)[0] + 1), placement, (1.0,))


def _halved(plain: Schedule) -> Schedule:
    """The same pass, back by I and W."""
    actions = [[action for slot in program for action in actions_of(slot)] for program in plain.programs]
    programs = (
        tuple(Action(a.stage, op, a.microbatch) for a in row for op in ("IW" if a.op == "B" else a.op))
        for row in actions
    )
    return Schedule(plain.name, tuple(programs), plain.placement, plain.weights)


def _passes(pipeline: Pipeline, work: Workload, sizes: Sequence[int], repeats: int, bar: Any) -> list[MicrobatchCosts]:
    """Each size in turn, again and again, forth and back; the first round warms up and finds out which sizes run."""

    def once(size: int, *, updates: bool = False) -> MicrobatchCosts:
        bar.update()
        batch = first_sequences(work.inputs, size), first_sequences(work.targets, size)
        return pipeline.measure_microbatch(*batch, updates=updates)

    good, problems = [], []
    for size in sizes:
        try:
            once(size)
            good.append(size)
        except (StageError, ConfigurationError, torch.OutOfMemoryError) as error:
            problems.append(error)
    if len(good) < 2:
        said = f"the model cannot be profiled on this device: {problems[0]}"
        raise ConfigurationError(said) from problems[0]
    passes: list[MicrobatchCosts] = []
    for number in range(repeats):
        passes += [once(size) for size in (good if number % 2 else reversed(good))]
    return [*passes[:-1], once(passes[-1].sequences, updates=True)]


def _stage(
    s: int,
    kept: Sequence[MicrobatchCosts],
    recomputed: Sequence[MicrobatchCosts] = (),
    halved: Sequence[MicrobatchCosts] = (),
) -> StageProfile:
    def line(measured: Sequence[MicrobatchCosts], read: Callable[[Any], float]) -> Line:
        by_size: dict[int, list[float]] = {}
        for costs in measured:
            by_size.setdefault(costs.sequences, []).append(read(costs.stages[s]))
        return fit_line((size, median(values)) for size, values in sorted(by_size.items()))

    return StageProfile(
        forward=line(kept, lambda stage: stage.seconds["F"]),
        backward=line(kept, lambda stage: stage.seconds["B"]),
        bare_forward=line(recomputed, lambda stage: stage.seconds["F"]) if recomputed else None,
        recompute=line(recomputed, lambda stage: stage.seconds["R"]) if recomputed else None,
        kept=line(kept, lambda stage: stage.kept),
        kept_input=line(recomputed, lambda stage: stage.kept) if recomputed else None,
        sent=line(kept, lambda stage: stage.sent),
        model_states=kept[-1].model_states[s],
        update=kept[-1].updates[s],
        input_gradient=line(halved, lambda stage: stage.seconds["I"]) if halved else None,
        weight_gradient=line(halved, lambda stage: stage.seconds["W"]) if halved else None,
        waiting=line(halved, lambda stage: stage.waiting) if halved else None,
    )


def _link(messages: Sequence[tuple[float, float]]) -> Line:
    """Seconds against bytes, from the median at each size."""
    by_size: dict[float, list[float]] = {}
    for size, seconds in messages:
        by_size.setdefault(size, []).append(seconds)
    points = [(size, median(values)) for size, values in sorted(by_size.items())]
    if len(points) < 2:
        return Line(points[0][1], 0.0, 0.0, tuple(points)) if points else Line(0.0, 0.0)
    return fit_line(points)


def _machine(places: Sequence[str]) -> str:
    if any(place.startswith("cuda") for place in places):
        return torch.cuda.get_device_name()
    return f"{platform.system()} {platform.machine()}"


@dataclass(frozen=True)
class Run:
    """One round of one candidate."""

    makespan: float
    peaks: tuple[int, ...]
    """Activation bytes, one entry a device."""
    allocated: tuple[int | None, ...]
    """The CUDA allocator's own."""


@dataclass(frozen=True)
class Runner:
    """Runs candidates on one model and batch, without updates."""

    work: Workload
    devices: int
    clock: str
    links: Links

    def cuts(self, chunks: Sequence[int]) -> tuple[list[int], dict[int, str]]:
        """(the v for which the model can be cut into p * v stages, why it cannot for the others)."""
        good, bad = [], {}
        for v in sorted({whole_number("chunks", "v", v) for v in chunks}):
            try:
                if v > 1 and not isinstance(self.work.model, nn.Module):
                    raise ConfigurationError("build_stage(s) builds one number of stages; pass the model for others")
                make_stages(
                    self.work.model, _empty(round_robin(self.devices, v)), self.work.cuts.get(self.devices * v), ()
                )
                good.append(v)
            except ConfigurationError as error:
                if v == 1:
                    raise
                bad[v] = str(error)
        return good, bad

    def recomputes(self) -> str | None:
        """Why the model cannot be recomputed; None if it can."""
        try:
            table = one_pass(_empty(round_robin(self.devices, 1))).with_recompute()
            replace(self.work, launch="threads").pipeline(table).close()
        except ConfigurationError as error:
            return str(error)
        return None

    def run(self, candidate: Candidate, limits: Sequence[float] | None, steps: int, done: Callable[[], Any]) -> Run:
        """The medians of ``steps`` steps, after one that warms up."""
        with self.work.pipeline(
            candidate.build(self.devices),
            clock=self.clock,
            links=self.links,
            memory_limit=limits,
            window=steps,
        ) as pipeline:
            spans = []
            for _ in range(steps + 1):
                report = pipeline.step(self.work.inputs, self.work.targets)
                spans.append(report.timeline.makespan if self.clock == "wall" else 0.0)
                done()
        makespan = median(spans[1:]) if self.clock == "wall" else report.timeline.makespan
        return Run(makespan, report.peak_activation_bytes, report.peak_allocated_bytes)

    @contextmanager
    def gradients_kept(self) -> Iterator[None]:
        """Gradients and buffers are afterwards as they were before."""
        if not isinstance(self.work.model, nn.Module):
            yield
            return
        grads = [(parameter, parameter.grad) for parameter in self.work.model.parameters()]
        buffers = [(buffer, buffer.clone()) for buffer in self.work.model.buffers()]
        try:
            yield
        finally:
            for parameter, grad in grads:
                parameter.grad = grad
            for buffer, before in buffers:
                buffer.copy_(before)
