"""Chooses schedule, m, v and recomputation: predicts all candidates, measures the best few."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from pipelab.errors import ConfigurationError, StageError, whole_number
from pipelab.memory import DeviceMemory
from pipelab.quantities import Limits, format_bytes, parse_limits
from pipelab.tuning.candidates import (
    NAIVE,
    Candidate,
    Discarded,
    Forecast,
    best_first,
    candidate_tables,
    forecast,
    list_candidates,
    listed,
)
from pipelab.tuning.profile import CostProfile
from pipelab.tuning.result import Measurement, Tuning

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pipelab.runtime.setup.devices import DeviceChoice
    from pipelab.runtime.setup.microbatches import LossTerms
    from pipelab.runtime.setup.settings import OptimizerFactory
    from pipelab.tuning.measure import Run, Runner

__all__ = ["shortlist", "tune"]

TRIES = 3
"""How often the next few are tried if none of the previous few ran to the end."""


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
    limits = parse_limits(memory_limit, profile.devices)
    schedules, recompute, lost = listed("schedules", schedules), listed("recompute", recompute), list(discarded)
    if "interleaved" in schedules:
        chunks = listed("chunks", chunks)
        known = [v for v in chunks if profile.devices * whole_number("chunks", "v", v) in profile.stages]
        lost += [_no_cut(v, profile.devices, "the profile has no such cut") for v in chunks if v not in known]
        chunks = known
    if True in recompute and not profile.recomputes:
        lost.append(
            Discarded(Candidate("gpipe", profile.devices, 1, True), "the profile was taken without recomputation")
        )
        recompute = tuple(again for again in recompute if not again)
    schedules, recompute = _left(schedules, chunks, recompute, lost)
    around = profile.best_microbatches(batch) if profile.line().error < 0.5 else math.inf
    kinds: dict[str, Any] = {"schedules": schedules, "microbatches": microbatches, "recompute": recompute}
    tables, bad = candidate_tables(batch, profile.devices, chunks=chunks, around=around, **kinds)
    wire = {"latency": latency, "bandwidth": bandwidth, "link": link}
    bar = tqdm(tables.items(), desc="predict", unit="candidate", disable=not progress, leave=False)
    forecasts = best_first(forecast(candidate, profile, batch, limits, wire, table) for candidate, table in bar)
    if all(f.excess is not None for f in forecasts):
        raise ConfigurationError(_least(forecasts, limits))
    made = Tuning(profile, batch, limits, clock, tuple(forecasts), (*lost, *bad))
    return replace(made, latency=latency, bandwidth=bandwidth)


def _no_cut(v: int, devices: int, reason: str) -> Discarded:
    return Discarded(Candidate("interleaved", devices, v), f"interleaved with v = {v}: {reason}")


def _left(
    schedules: Sequence[str], chunks: Sequence[int], recompute: Sequence[bool], lost: Sequence[Discarded]
) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    """What is left of schedules and recomputation. Raises ConfigurationError if that is nothing, with the reasons."""
    names = tuple(name for name in schedules if name != "interleaved" or chunks)
    if not names or not recompute:
        raise ConfigurationError(f"there is no candidate left. {'; '.join(entry.reason for entry in lost)}")
    return names, tuple(recompute)


def _least(forecasts: Sequence[Forecast], limits: Sequence[float]) -> str:
    def short(f: Forecast) -> float:
        return max(held.total / limit for held, limit in zip(f.memory, limits, strict=True))

    least = min(forecasts, key=short)
    allowed = ", ".join(format_bytes(limit) for limit in dict.fromkeys(limits))
    device = max(range(len(limits)), key=lambda r: least.memory[r].total / limits[r])
    held = least.memory[device]
    return (
        f"no candidate fits in {allowed} per device: {least.candidate} needs least, "
        f"{format_bytes(held.total)} on device {device} ({held}); allow that much, use more devices, or allow more "
        "micro-batches, 1f1b and recomputation"
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
    sizes: Sequence[int] | None = None,
    on_profile: Callable[[CostProfile], object] | None = None,
    progress: bool = True,
) -> Tuning:
    """Find the fastest way to train ``model`` on batches like this one, on ``devices`` devices.

    1. Take a cost profile (unless ``profile`` is given): micro-batches of a few sizes, through all stages and back.
    2. Predict step time and peak memory of every candidate, schedule x m x v x recomputation. Leave out those over
       ``memory_limit`` (bytes per device for weights, gradients, optimizer state and activations).
    3. Measure the ``measure`` fastest, and the fastest schedule at m = 4p, in ``rounds`` of ``steps`` steps that take
       turns. Choose.

    ``microbatches``: by default multiples of p, powers of two, and neighbours of m*. ``chunks`` are for interleaved.
    Without ``optimizer`` no optimizer state is counted. ``clock``: by default "wall" if each device has a GPU, else
    "device". ``latency`` and ``bandwidth`` model a link. ``sizes`` are the profiled sizes; ``on_profile`` gets the
    profile as soon as it exists. The other arguments are those of ``Pipeline``. The model's weights do not change.

    Raises ConfigurationError if there is no candidate, if none fits or runs, or if the model cannot be profiled here.
    """
    from pipelab.runtime.setup.devices import choose_devices
    from pipelab.runtime.setup.microbatches import batch_size
    from pipelab.tuning.measure import Runner, profile_costs
    from pipelab.tuning.workload import Workload

    for name, count in (("rounds", rounds), ("steps", steps)):
        whole_number(name, "", count)
    if measure != 0 or isinstance(measure, bool):
        whole_number("measure", "", measure)
    if clock not in (None, "device", "wall"):
        raise ConfigurationError(f"clock must be 'device' or 'wall', got {clock!r}; leave it out to have it chosen")
    batch, limits = batch_size(inputs, targets), parse_limits(memory_limit, devices)
    schedules, recompute, lost = listed("schedules", schedules), listed("recompute", recompute), list[Discarded]()
    chunks = listed("chunks", chunks) if "interleaved" in schedules else ()
    microbatches = None if microbatches is None else listed("microbatches", microbatches)
    # What cannot work is said before anything is measured.
    list_candidates(batch, devices, schedules=schedules, microbatches=microbatches, chunks=chunks, recompute=recompute)
    if profile is not None and profile.devices != devices:
        raise ConfigurationError(
            f"the profile is for p = {profile.devices} devices, not for {devices}; take a profile for {devices}"
        )
    places = choose_devices(device, devices)
    if clock is None:
        clock = "wall" if len(set(places)) == devices and places[0].type == "cuda" else "device"
    work = Workload(model, inputs, targets, loss, launch, device, loss_terms, seed)
    runner = Runner(work, devices, clock, latency, bandwidth)
    cut, uncut = runner.cuts([1, *chunks])
    lost += [_no_cut(v, devices, reason) for v, reason in uncut.items()]
    chunks = tuple(v for v in chunks if v in cut)
    reason = runner.recomputes() if True in recompute else None
    if reason is not None:
        lost.append(Discarded(Candidate("gpipe", devices, 1, True), reason))
        recompute = tuple(again for again in recompute if not again)
    schedules, recompute = _left(schedules, chunks, recompute, lost)
    if profile is None:
        passes: dict[str, Any] = {"sizes": sizes, "recompute": True in recompute, "repeats": 3, "progress": progress}
        profile = profile_costs(**vars(work), devices=devices, chunks=cut, optimizer=optimizer, **passes)
    if on_profile is not None:
        on_profile(profile)
    found = shortlist(
        profile,
        batch,
        schedules=schedules,
        microbatches=microbatches,
        chunks=chunks,
        recompute=recompute,
        memory_limit=memory_limit,
        latency=latency,
        bandwidth=bandwidth,
        link=clock == "wall",
        clock=clock,
        discarded=lost,
        progress=progress,
    )
    measured: dict[Candidate, Measurement] = {}
    for _ in range(TRIES if measure else 0):
        few = _worth_measuring(found, measure, measured)
        measured |= _measure(found, few, runner, limits, rounds, steps, progress=progress)
        if not few or any(row.failed is None for row in measured.values()):
            break
    failed = [row.failed for row in measured.values() if row.failed is not None]
    if failed and len(failed) == len(measured):
        raise ConfigurationError(
            f"none of the {len(failed)} candidates that were tried ran to the end, although they fit by the profile; "
            f"the first: {failed[0]}"
        )
    return replace(found, measured=measured)


def _measure(
    found: Tuning,
    few: Sequence[Candidate],
    runner: Runner,
    limits: Sequence[float],
    rounds: int,
    steps: int,
    *,
    progress: bool,
) -> dict[Candidate, Measurement]:
    """Run ``few`` in rounds in which they take turns, forth and back."""
    rows: dict[Candidate, list[Run]] = {c: [] for c in few}
    failed: dict[Candidate, str] = {}
    bar = tqdm(total=len(few) * rounds * (steps + 1), desc="measure", unit="step", disable=not progress, leave=False)
    with bar, runner.gradients_kept():
        for number in range(rounds):
            for candidate in few if number % 2 == 0 else list(reversed(few)):
                if candidate in failed:
                    continue
                bar.set_postfix_str(str(candidate))
                try:
                    rows[candidate].append(runner.run(candidate, _room(found, candidate, limits), steps, bar.update))
                except StageError as error:  # out of memory, ours or CUDA's; a layer that needs more than one sequence
                    failed[candidate] = str(error)
    measured = {}
    for candidate, row in rows.items():
        states = [held.model_states for held in found[candidate].memory]
        peaks = [max(column) for column in zip(*(run.peaks for run in row), strict=True)]
        memory = tuple(DeviceMemory(*pair) for pair in zip(states, peaks, strict=False))
        allocated = row[-1].allocated if row else ()
        times = tuple(run.makespan for run in row)
        measured[candidate] = Measurement(times, memory, failed.get(candidate), allocated)
    return measured


def _worth_measuring(found: Tuning, count: int, tried: Container[Candidate]) -> list[Candidate]:
    """The fastest few, and the fastest schedule at m = 4p, a common start."""
    fitting = [f.candidate for f in found.fitting if f.candidate not in tried]
    start = [c for c in fitting if c.microbatches == found.start]
    return list(dict.fromkeys([*fitting[:count], *start[:1]]))


def _room(found: Tuning, candidate: Candidate, limits: Sequence[float]) -> list[float] | None:
    """The limits of a run without an optimizer: less the state that one would hold."""
    if all(map(math.isinf, limits)):
        return None
    held = [memory.model_states.optimizer for memory in found[candidate].memory]
    return [min(limit, 1e18) - state for limit, state in zip(limits, held, strict=True)]
