"""Chooses schedule, m, v and recomputation: predicts all candidates, measures the best few."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from pipelab.errors import ConfigurationError, OutOfMemoryError, whole_number
from pipelab.memory import DeviceMemory
from pipelab.quantities import format_bytes
from pipelab.tuning.candidates import (
    NAIVE,
    Candidate,
    Discarded,
    Forecast,
    Limits,
    best_first,
    forecast,
    limits_of,
    list_candidates,
)
from pipelab.tuning.profile import CostProfile
from pipelab.tuning.result import Measurement, Tuning

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pipelab.runtime.devices import DeviceChoice
    from pipelab.runtime.microbatches import LossTerms
    from pipelab.runtime.settings import OptimizerFactory

__all__ = ["shortlist", "tune"]


def shortlist(
    profile: CostProfile,
    batch: int,
    *,
    schedules: Sequence[str] = (NAIVE, "gpipe", "1f1b", "interleaved"),
    microbatches: Sequence[int] | None = None,
    chunks: Sequence[int] = (2,),
    recompute: Sequence[bool] = (False, True),
    memory_limit: Limits = None,
    latency: float = 0.0,
    bandwidth: float = math.inf,
    link: bool = False,
    clock: str = "device",
    discarded: Sequence[Discarded] = (),
    progress: bool = False,
) -> Tuning:
    """Predict every candidate from a cost profile, without running anything: no model, no torch.

    Arguments as for ``tune``; ``link`` counts messages as the profile has measured them. Raises ConfigurationError if
    there is no candidate, or none fits: then it says what the least would be.
    """
    limits = limits_of(memory_limit, profile.devices)
    around = profile.best_microbatches(batch)
    kinds: dict[str, Any] = {"schedules": schedules, "microbatches": microbatches, "recompute": recompute}
    found, bad = list_candidates(batch, profile.devices, chunks=chunks, around=around, **kinds)
    wire = {"latency": latency, "bandwidth": bandwidth, "link": link}
    bar = tqdm(found, desc="predict", unit="candidate", disable=not progress, leave=False)
    forecasts = best_first(forecast(candidate, profile, batch, limits, wire) for candidate in bar)
    if all(f.excess is not None for f in forecasts):
        raise ConfigurationError(_least(forecasts, limits))
    return Tuning(profile, batch, limits, clock, tuple(forecasts), (*discarded, *bad))


def _least(forecasts: Sequence[Forecast], limits: Sequence[float]) -> str:
    def short(f: Forecast) -> float:
        return max(held.total / limit for held, limit in zip(f.memory, limits, strict=True))

    least = min(forecasts, key=short)
    allowed = " ".join(format_bytes(limit) for limit in dict.fromkeys(limits))
    device = max(range(len(limits)), key=lambda r: least.memory[r].total / limits[r])
    held = least.memory[device]
    return (
        f"no candidate fits in {allowed} per device: the least is {least.candidate}, which needs "
        f"{format_bytes(held.total)} on device {device} ({held}); allow that much, use more devices, or let more "
        "micro-batches, 1f1b and recomputation be tried"
    )


def tune(
    model: nn.Module | Callable[[int], nn.Module],
    inputs: Any,
    targets: Any,
    *,
    loss: Callable[[Any, Any], Tensor],
    devices: int = 4,
    schedules: Sequence[str] = (NAIVE, "gpipe", "1f1b", "interleaved"),
    microbatches: Sequence[int] | None = None,
    chunks: Sequence[int] = (2,),
    recompute: Sequence[bool] = (False, True),
    memory_limit: Limits = None,
    optimizer: OptimizerFactory | None = None,
    launch: str = "threads",
    clock: str | None = None,
    device: DeviceChoice = None,
    latency: float = 0.0,
    bandwidth: float = math.inf,
    loss_terms: LossTerms | None = None,
    seed: int = 0,
    profile: CostProfile | None = None,
    measure: int = 4,
    rounds: int = 3,
    steps: int = 3,
    progress: bool = True,
) -> Tuning:
    """Find the fastest way to train ``model`` on batches like this one, on ``devices`` devices.

    1. Take a cost profile (unless ``profile`` is given): micro-batches of a few sizes, through all stages and back.
    2. From it predict step time and peak memory of every candidate, schedule x m x v x recomputation, and leave out
       those beyond ``memory_limit`` (bytes per device, for weights, gradients, optimizer state and activations).
    3. Measure the ``measure`` fastest, and the fastest schedule at m = 4p, in ``rounds`` of ``steps`` steps that take
       turns; choose.

    ``microbatches``: default multiples of p, powers of two, and the neighbours of m*. ``chunks`` are for interleaved.
    ``clock``: "wall" where each device has a GPU of its own, else "device". ``latency`` and ``bandwidth`` model a link.
    The rest as for ``Pipeline``. The model's weights do not change. Raises ConfigurationError where there is no
    candidate, none fits, or the model cannot be profiled here.
    """
    from pipelab.runtime.devices import choose_devices
    from pipelab.runtime.microbatches import batch_size
    from pipelab.tuning.measure import Run, Runner, profile_costs

    for name, count in (("rounds", rounds), ("steps", steps)):
        whole_number(name, "", count)
    if measure != 0:
        whole_number("measure", "", measure)
    batch, limits = batch_size(inputs, targets), limits_of(memory_limit, devices)
    kinds: dict[str, Any] = {"schedules": schedules, "microbatches": microbatches, "recompute": recompute}
    list_candidates(batch, devices, chunks=chunks, **kinds)  # says what cannot work before anything is measured
    places = choose_devices(device, devices)
    if clock is None:
        clock = "wall" if len(set(places)) == devices and places[0].type == "cuda" else "device"
    runner = Runner(model, inputs, targets, loss, devices, launch, clock, device, loss_terms, seed, latency, bandwidth)
    cut, uncut = runner.cuts([1, *(chunks if "interleaved" in schedules else ())])
    chunks = [v for v in chunks if v in cut]
    if profile is None:
        settings: dict[str, Any] = {"loss": loss, "optimizer": optimizer, "launch": launch, "device": device}
        settings |= {"loss_terms": loss_terms, "seed": seed, "repeats": 3, "progress": progress}
        profile = profile_costs(model, inputs, targets, devices=devices, chunks=cut, **settings)
    elif profile.devices != devices:
        raise ConfigurationError(
            f"the profile is of p = {profile.devices} devices, not of {devices}; take one for those"
        )
    if not chunks and "interleaved" in schedules:
        kinds["schedules"] = [name for name in schedules if name != "interleaved"]
    lost = [Discarded(Candidate("interleaved", devices, v), reason) for v, reason in uncut.items()]
    modelled: dict[str, Any] = {"latency": latency, "bandwidth": bandwidth, "link": clock == "wall"}
    found = shortlist(
        profile,
        batch,
        chunks=chunks,
        memory_limit=memory_limit,
        clock=clock,
        discarded=lost,
        progress=progress,
        **kinds,
        **modelled,
    )
    few = _worth_measuring(found, measure)
    bar = tqdm(total=len(few) * rounds * (steps + 1), desc="measure", unit="step", disable=not progress, leave=False)
    with bar, runner.gradients_kept():
        rows: dict[Candidate, list[Run]] = {c: [] for c in few}
        failed: dict[Candidate, str] = {}
        for number in range(rounds):
            for candidate in few if number % 2 == 0 else reversed(few):
                if candidate in failed:
                    continue
                bar.set_postfix_str(str(candidate))
                room = _room(found, candidate, limits)
                try:
                    rows[candidate].append(runner.run(candidate, room, steps, bar.update))
                except OutOfMemoryError as error:
                    failed[candidate] = str(error)
    measured = {}
    for candidate, row in rows.items():
        resident = [held.resident for held in found[candidate].memory]
        peaks = [max(column) for column in zip(*(run.peaks for run in row), strict=True)]
        memory = tuple(DeviceMemory(*pair) for pair in zip(resident, peaks, strict=False))
        allocated = row[-1].allocated if row else ()
        times = tuple(run.makespan for run in row)
        measured[candidate] = Measurement(times, memory, failed.get(candidate), allocated)
    return replace(found, measured=measured)


def _worth_measuring(found: Tuning, count: int) -> list[Candidate]:
    """The fastest few, and the fastest schedule at m = 4p, where practitioners start."""
    if count == 0:
        return []
    few = [f.candidate for f in found.fitting[:count]]
    start = [f.candidate for f in found.fitting if f.candidate.microbatches == found.start]
    return list(dict.fromkeys([*few, *start[:1]]))


def _room(found: Tuning, candidate: Candidate, limits: Sequence[float]) -> list[float] | None:
    """The limits of a run without an optimizer: less the state that one would hold."""
    if all(map(math.isinf, limits)):
        return None
    held = [memory.resident.optimizer for memory in found[candidate].memory]
    return [min(limit, 1e18) - state for limit, state in zip(limits, held, strict=True)]
