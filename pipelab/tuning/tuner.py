"""Chooses schedule, m, v and recomputation: predicts all candidates, measures the best few."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from pipelab.errors import ConfigurationError, StageError, whole_number
from pipelab.quantities import DeviceMemory, Limits, format_bytes, parse_limits
from pipelab.simulation.links import Links
from pipelab.simulation.search import search_schedule
from pipelab.tuning.candidates import (
    NAIVE,
    Candidate,
    Discarded,
    Forecast,
    best_first,
    candidate_tables,
    chunks_of,
    forecast,
    listed,
    synchronous,
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
_NO_HALVES = "the profile was taken without the halves of a backward (I and W); take one with split=True"


def shortlist(
    profile: CostProfile,
    batch: int,
    *,
    schedules: Sequence[str] | None = None,
    microbatches: Sequence[int] | None = None,
    chunks: Sequence[int] = (2,),
    recompute: Sequence[bool] = (False, True),
    search: float | None = None,
    memory_limit: Limits = None,
    latency: float = 0.0,
    bandwidth: float = math.inf,
    links: Links | None = None,
    link: bool = False,
    clock: str = "device",
    discarded: Sequence[Discarded] = (),
    progress: bool = False,
) -> Tuning:
    """Predict every candidate from a cost profile, without running anything: no model, no torch.

    Arguments as for ``tune``; ``link`` counts messages as the profile has measured them. Raises ConfigurationError if
    there is no candidate, or none fits: then it says what the least would be.
    """
    limits, lost = parse_limits(memory_limit, profile.devices), list(discarded)
    links = Links.either(latency, bandwidth, links)
    links.require(profile.devices)
    names, recompute = _asked(schedules, search), listed("recompute", recompute)
    uncut = {
        v: "the profile has no such cut" for v in _wanted(names, chunks) if profile.devices * v not in profile.stages
    }
    names, chunks = _cut(names, chunks, uncut, profile.devices, lost)
    if True in recompute and not profile.recomputes:
        lost.append(
            Discarded(Candidate("gpipe", profile.devices, 1, True), "the profile was taken without recomputation")
        )
        recompute = tuple(again for again in recompute if not again)
    _some(names and recompute, lost)
    around = profile.best_microbatches(batch) if profile.line().error < 0.5 else math.inf
    kinds: dict[str, Any] = {"schedules": names, "microbatches": microbatches, "recompute": recompute}
    tables, bad = candidate_tables(batch, profile.devices, chunks=chunks, around=around, **kinds)
    lost += bad
    halved = {} if profile.splits else {c: table for c, table in tables.items() if "I" in table.ops}
    if halved:
        families = ", ".join(dict.fromkeys(c.schedule for c in halved))
        lost.append(Discarded(next(iter(halved)), f"{families}: {_NO_HALVES}"))
        tables = {c: table for c, table in tables.items() if c not in halved}
        _some(tables, lost)
    wire = {"links": links, "link": link}
    bar = tqdm(tables.items(), desc="predict", unit="candidate", disable=not progress, leave=False)
    forecasts = best_first(forecast(candidate, profile, batch, limits, wire, table) for candidate, table in bar)
    if all(f.excess is not None for f in forecasts):
        raise ConfigurationError(_least(forecasts, limits))
    if search is not None:
        forecasts = best_first([*forecasts, *_searched(forecasts, profile, limits, wire, search, lost)])
    return Tuning(profile, batch, limits, clock, tuple(forecasts), tuple(lost), links=links)


def _asked(schedules: Sequence[str] | None, search: float | None) -> tuple[str, ...]:
    if search is not None and not search > 0:
        raise ConfigurationError(f"search is how many seconds to search, got {search!r}; try 10")
    return synchronous() if schedules is None else listed("schedules", schedules)


def _wanted(names: Sequence[str], chunks: Sequence[int]) -> list[int]:
    """Every v that is tried."""
    given = listed("chunks", chunks) if any(chunks_of(name, ()) == () for name in names) else ()
    return sorted({whole_number("chunks", "v", v) for name in names for v in chunks_of(name, given)})


def _cut(
    names: Sequence[str], chunks: Sequence[int], uncut: Mapping[int, str], devices: int, lost: list[Discarded]
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The schedules and the v that are left; ``lost`` gets the others, with their reasons."""
    for v, reason in uncut.items():
        known = [name for name in names if v in chunks_of(name, chunks)]
        lost.append(Discarded(Candidate(known[0], devices, v), f"{', '.join(known)} with v = {v}: {reason}"))
    chunks = tuple(v for v in chunks if v not in uncut)
    return tuple(name for name in names if set(chunks_of(name, chunks)) - set(uncut)), chunks


def _some(left: object, lost: Sequence[Discarded]) -> None:
    """Raises ConfigurationError if nothing is left, with the reasons."""
    if not left:
        raise ConfigurationError(f"there is no candidate left. {'; '.join(entry.reason for entry in lost)}")


def _searched(
    forecasts: Sequence[Forecast],
    profile: CostProfile,
    limits: Sequence[float],
    wire: dict[str, Any],
    seconds: float,
    lost: list[Discarded],
) -> Iterator[Forecast]:
    """What is found for m, v and placement of the three best without recomputation that fit."""
    best: dict[tuple[int, int], Forecast] = {}
    for f in forecasts:
        alone = all(len(homes) == 1 for homes in f.timeline.schedule.placement)
        if f.excess is None and alone and not f.candidate.recompute and f.candidate.schedule != NAIVE:
            best.setdefault((f.candidate.microbatches, f.candidate.chunks), f)
    few = list(best.items())[:3]
    if not few or not profile.splits:
        reason = "nothing fits that does not recompute, and the search knows no R" if profile.splits else _NO_HALVES
        lost.append(Discarded(Candidate("searched", profile.devices), f"search: {reason}"))
        few = []
    for (m, v), f in few:
        found = search_schedule(
            profile.devices,
            m,
            v,
            profile.costs(f.batch, **wire),
            [limit - held.model_states.total for limit, held in zip(limits, f.memory, strict=True)],
            [home for (home,) in f.timeline.schedule.placement],
            batch=f.batch,
            seconds=seconds / len(few),
        )
        if found.makespan < f.makespan * (1 - 1e-9):
            yield forecast(Candidate("searched", m, v, table=found.schedule), profile, f.batch, limits, wire)


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
    schedules: Sequence[str] | None = None,
    microbatches: Sequence[int] | None = None,
    chunks: Sequence[int] = (2,),
    recompute: Sequence[bool] = (False, True),
    search: float | None = None,
    plan: bool = False,
    memory_limit: Limits = None,
    optimizer: OptimizerFactory | None = None,
    launch: str = "threads",
    clock: str | None = None,
    device: DeviceChoice = None,
    latency: float = 0.0,
    bandwidth: float = math.inf,
    links: Links | None = None,
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

    ``schedules``: by default all that flush. ``microbatches``: by default multiples of p, powers of two, and neighbours
    of m*. ``chunks`` are for schedules that take any v. ``search``: for so many seconds, tables for these very costs
    are searched too, at m and v of the best three. ``plan``: layers are profiled one by one, and the model is cut where
    ``plan_cuts`` says, not evenly. Without ``optimizer`` no optimizer state is counted. ``clock``: by
    default "wall" if each device has a GPU, else "device". ``latency`` and ``bandwidth`` model a link,
    ``links`` one for each pair of devices. ``sizes`` are the profiled sizes; ``on_profile`` gets the profile as soon as
    it exists. The other arguments are those of ``Pipeline``. The model's weights do not change.

    Raises ConfigurationError if there is no candidate, if none fits or runs, or if the model cannot be profiled here.
    """
    from pipelab.runtime.setup.devices import choose_devices
    from pipelab.runtime.setup.microbatches import batch_size
    from pipelab.tuning.measure import Runner, profile_costs, profile_layers
    from pipelab.tuning.planning.plan import planned_profile
    from pipelab.tuning.workload import Workload

    for name, count in (("rounds", rounds), ("steps", steps)):
        whole_number(name, "", count)
    if measure != 0 or isinstance(measure, bool):
        whole_number("measure", "", measure)
    if clock not in (None, "device", "wall"):
        raise ConfigurationError(f"clock must be 'device' or 'wall', got {clock!r}; leave it out to have it chosen")
    batch, limits = batch_size(inputs, targets), parse_limits(memory_limit, devices)
    links = Links.either(latency, bandwidth, links)
    links.require(devices)
    names, recompute, lost = _asked(schedules, search), listed("recompute", recompute), list[Discarded]()
    wanted = _wanted(names, chunks)
    microbatches = None if microbatches is None else listed("microbatches", microbatches)
    # What cannot work is said before anything is measured.
    kinds: dict[str, Any] = {"microbatches": microbatches, "recompute": recompute, "around": math.inf}
    tables, _ = candidate_tables(batch, devices, schedules=names, chunks=chunks, **kinds)
    layers = profile if profile is not None and plan and profile.devices == 1 else None
    if profile is not None and layers is None and profile.devices != devices:
        raise ConfigurationError(
            f"the profile is for p = {profile.devices} devices, not for {devices}; take a profile for {devices}"
        )
    places = choose_devices(device, devices)
    if clock is None:
        clock = "wall" if len(set(places)) == devices and places[0].type == "cuda" else "device"
    work = Workload(model, inputs, targets, loss, launch, device, loss_terms, seed)
    runner = Runner(work, devices, clock, links)
    cut, uncut = runner.cuts([1, *wanted])
    names, chunks = _cut(names, chunks, uncut, devices, lost)
    reason = runner.recomputes() if True in recompute else None
    if reason is not None:
        lost.append(Discarded(Candidate("gpipe", devices, 1, True), reason))
        recompute = tuple(again for again in recompute if not again)
    _some(names and recompute, lost)
    if profile is None or layers is not None:
        passes: dict[str, Any] = {"sizes": sizes, "recompute": True in recompute, "repeats": 3, "progress": progress}
        passes["split"] = search is not None or any("I" in table.ops for table in tables.values())
        if plan:
            told = {name: value for name, value in vars(work).items() if name != "cuts"}
            layers = layers or profile_layers(**told, optimizer=optimizer, **passes)
            profile = planned_profile(layers, devices, cut, batch=batch, memory_limit=memory_limit, links=links)
            work = replace(work, cuts={int(n): cuts for n, cuts in profile.about["cuts"].items()})
            runner = replace(runner, work=work)
        else:
            profile = profile_costs(**vars(work), devices=devices, chunks=cut, optimizer=optimizer, **passes)
    if on_profile is not None:
        on_profile(profile)
    found = shortlist(
        profile,
        batch,
        schedules=names,
        microbatches=microbatches,
        chunks=chunks,
        recompute=recompute,
        search=search,
        memory_limit=memory_limit,
        links=links,
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
