"""Checks a configuration and says what is likely wrong with it, before anything is run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipelab.errors import ConfigurationError, whole_number
from pipelab.quantities import DeviceMemory, Limits, format_bytes, format_time, parse_limits
from pipelab.schedules.catalogue import build_schedule, recipes
from pipelab.tuning.candidates import NAIVE, Candidate, forecast
from pipelab.tuning.profile import CostProfile

__all__ = ["check_configuration", "memory_advice", "microbatch_advice"]

ROOM = 0.8
"""Beyond this part of a limit little is left for what no model counts: workspace, fragments, uneven batches."""


def check_configuration(
    schedule: str,
    devices: int,
    microbatches: int,
    *,
    batch: int,
    chunks: int | None = None,
    recompute: bool = False,
    profile: CostProfile | None = None,
    memory_limit: Limits = None,
) -> tuple[str, ...]:
    """Sentences on what is likely wrong with a configuration; empty where nothing is.

    Too few micro-batches for p, too many for the cost of an action, interleaving where m makes no equal groups, and,
    with a ``profile``, memory beyond 80 % of ``memory_limit``. Raises ConfigurationError for what is no configuration
    at all.

    >>> check_configuration("1f1b", 4, 2, batch=64)[0][:42]
    'm = 2 is less than p = 4: at least 2 devic'
    """
    p, m = whole_number("devices", "p", devices), whole_number("microbatches", "m", microbatches)
    batch = whole_number("batch", "B", batch)
    if profile is not None and profile.devices != p:
        raise ConfigurationError(
            f"the profile is for p = {profile.devices} devices, not for {p}; take a profile for {p}"
        )
    v = chunks if chunks is not None else recipes()[schedule].default_chunks if schedule in recipes() else 1
    if m > batch:
        return (
            f"m = {m} micro-batches need at least {m} sequences, but the batch has {batch}; take m = {batch} or less",
        )
    if schedule == "interleaved" and (tries := _in_groups(p, m, v, batch)):
        return (
            f"interleaved cuts m micro-batches into m // p groups of equal size: m = {m}, p = {p} cannot make {m // p} "
            f"equal groups; take m = {tries}, or 1f1b, which takes any m",
        )
    candidate = Candidate(schedule, m, v, recompute)
    build_schedule(schedule, p, m, v)
    found = list(microbatch_advice(candidate, p, batch, profile))
    if profile is not None:
        limits = parse_limits(memory_limit, profile.devices)
        seen = forecast(candidate, profile, batch, limits, {})
        found += [f"{candidate} does not fit: it {seen.excess}"] if seen.excess else memory_advice(seen.memory, limits)
    return tuple(found)


def _in_groups(devices: int, microbatches: int, chunks: int, batch: int) -> str:
    """Of an m that interleaved cannot take, the nearest that it can: "8 or 10". "" where it can take m."""
    p, m = devices, microbatches
    check = recipes()["interleaved"].check
    if check(p, m, chunks) is None:
        return ""
    ways = (range(m, 0, -1), range(m, batch + 1))
    near = (next((n for n in way if check(p, n, chunks) is None), None) for way in ways)
    return " or ".join(str(n) for n in near if n is not None)


def microbatch_advice(candidate: Candidate, devices: int, batch: int, profile: CostProfile | None) -> tuple[str, ...]:
    """On the number of micro-batches."""
    p, m, v = devices, candidate.microbatches, candidate.chunks
    if candidate.schedule == NAIVE:
        return () if p == 1 else (f"naive keeps p - 1 = {p - 1} of {p} devices idle at any time; 1f1b does not",)
    bubble = 1 - v * m / (v * max(m, p) + min(m, p) - 1)  # (p - 1) / (v m + p - 1) where m is at least p
    best = profile.best_microbatches(batch) if profile is not None else math.inf
    found = []
    if m < p:
        found.append(
            f"m = {m} is less than p = {p}: at least {p - m} devices are idle at any time, and the bubble takes "
            f"{bubble:.0%}; take m of at least p, and start with 4p = {4 * p}"
        )
    elif m < 4 * p and m < 0.7 * best and v == 1:
        found.append(
            f"m = {m} is less than 4p = {4 * p}: the bubble takes {bubble:.0%}; more micro-batches make it smaller, "
            "until the fixed cost of their actions outweighs the gain"
        )
    if profile is not None and m > 2 * best:
        line = profile.line()
        share = line.alpha / line(batch / m)
        found.append(
            f"m = {m} is far above m* = {best:.1f}: {share:.0%} of each action is its fixed cost of "
            f"{format_time(line.alpha, 's')}; fewer, larger micro-batches are faster"
        )
    if batch % m:
        small = batch // m
        found.append(
            f"{batch} sequences in m = {m} micro-batches have sizes {small + 1} and {small}. A Pipeline weights their "
            "losses by their number of terms; a plain mean of their means would not be the mean of the batch"
        )
    return tuple(found)


def memory_advice(memory: Sequence[DeviceMemory], limits: Sequence[float]) -> tuple[str, ...]:
    """On memory that is nearly full."""
    used, r = max((held.total / limit, r) for r, (held, limit) in enumerate(zip(memory, limits, strict=True)))
    if used <= ROOM:
        return ()
    return (
        f"device {r} needs {used:.0%} of its {format_bytes(limits[r])}: above {ROOM:.0%} a longer sequence, workspace "
        "or a fragmented allocator may exceed the limit",
    )
