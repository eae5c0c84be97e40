"""Where to cut a model, and on which devices: for a schedule, a batch, unlike devices, links and memory limits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, combinations, pairwise, permutations
from typing import Any

import numpy as np

from pipelab.errors import ConfigurationError, whole_number
from pipelab.quantities import DeviceMemory, Limits, Speeds, format_bytes, format_time, parse_limits, parse_speeds
from pipelab.schedules.catalogue import build_schedule
from pipelab.schedules.reserved import reserved
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.table import Array
from pipelab.simulation.costs import Costs
from pipelab.simulation.links import Links
from pipelab.simulation.simulate import peak_activation_bytes, simulate
from pipelab.timeline import Timeline
from pipelab.tuning.planning.layers import Layers
from pipelab.tuning.planning.partition import bottleneck, bottleneck_in_any_order, moved
from pipelab.tuning.profile import CostProfile, StageProfile

__all__ = ["CutPlan", "plan_cuts", "planned_profile"]

ANY_ORDER = 8
"""Up to so many devices all orders are compared."""
_ALL = 400
"""Up to so many cuts are all simulated."""
_ACTIONS = 60_000
"""How many actions are simulated in all at most, where there are more cuts."""
_NEAR = 1.02
"""A predicted makespan is no finer than that: among cuts so near the shortest, the least bottleneck decides."""


@dataclass(frozen=True, eq=False)
class CutPlan:
    """A cut, and what it is predicted to give. Times in seconds, sizes in bytes.

    ``cuts`` are the first layers of stages 1, 2, ..., as ``Pipeline(cuts=...)`` takes them. ``order[r]`` is which of
    the devices given stands at place r of the pipeline. ``profile`` has the stages of the cut, on their devices.
    """

    schedule: Schedule
    batch: int
    layers: int
    cuts: tuple[int, ...]
    order: tuple[int, ...]
    profile: CostProfile
    timeline: Timeline
    even: Timeline
    """The same step with the layers cut evenly, in the order given; it may need more memory than there is."""
    even_fits: bool
    least: float | None
    """No cut has a device that works less than this, where it works most (v = 1)."""
    bound: float
    """No cut has a shorter makespan."""
    exact: bool
    """Whether all cuts were simulated; else those around the best few."""
    tries: int

    @property
    def makespan(self) -> float:
        """From the first forward to the last backward."""
        return self.timeline.makespan

    @property
    def gain(self) -> float:
        """The part of the even cut's makespan that it saves."""
        return 1 - self.makespan / self.even.makespan

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many layers each stage has."""
        return tuple(b - a for a, b in pairwise((0, *self.cuts, self.layers)))

    @property
    def bottleneck(self) -> int:
        """The place in the pipeline of the device that works most."""
        busy = self.timeline.busy
        return max(range(len(busy)), key=busy.__getitem__)

    @property
    def balance(self) -> float:
        """How even the work is: mean over max of the devices' busy times."""
        busy = self.timeline.busy
        return sum(busy) / len(busy) / max(busy)

    @cached_property
    def memory(self) -> tuple[DeviceMemory, ...]:
        """What each place in the pipeline holds."""
        return self.profile.memory(self.timeline)

    def __str__(self) -> str:
        stages, r, m = ", ".join(map(str, self.sizes)), self.bottleneck, self.schedule.microbatches
        most, even = self.timeline.busy[r], format_time(self.even.makespan, "s")
        order = "" if self.order == tuple(sorted(self.order)) else f", devices in the order {list(self.order)}"
        beside = f"takes {even}" if self.even_fits else f"takes {even} and does not fit"
        least = "" if self.least is None else f"; no cut has less than {format_time(self.least, 's')} there"
        return (
            f"{self.schedule.name}, m = {m}: cuts {list(self.cuts)} (layers: {stages}){order}: "
            f"{format_time(self.makespan, 's')}; cut evenly it {beside}.\n"
            f"Device {r} is the bottleneck, with {format_time(most, 's')} of work a step (balance {self.balance:.2f})"
            f"{least}.\nNo cut takes less than {format_time(self.bound, 's')}."
        )


@reserved
def plan_cuts(
    profile: CostProfile,
    devices: int,
    *,
    schedule: str | Schedule = "1f1b",
    microbatches: int | None = None,
    chunks: int | None = None,
    batch: int,
    recompute: bool = False,
    speeds: Speeds = None,
    memory_limit: Limits = None,
    latency: float = 0.0,
    bandwidth: float = math.inf,
    links: Links | None = None,
    any_order: bool = False,
) -> CutPlan:
    """The contiguous cut of a model's layers under which a step takes least, or as good as least.

    ``profile``: what each layer costs, from ``profile_layers``. ``schedule``: a table, or the name of one for
    ``microbatches`` (default 2p) and ``chunks``; a table decides p, m and placement. ``speeds``: how fast each device
    is against the one that was profiled. ``memory_limit``: bytes for weights, gradients, optimizer state and
    activations, for all devices or one each. ``latency`` (seconds) and ``bandwidth`` (bytes per second) model the link
    between, or ``links`` that of each pair of devices.
    ``any_order``: the devices may stand in any order (up to eight of them), and their links go with them.

    First a dynamic program finds the cut whose busiest device has least to do: exact for one stage a device, in the
    given order or over all. Another one counts links too. From there cuts are simulated: all where there are few, else
    those around the best ones. Among those whose makespan is within 2 % of the shortest, the least bottleneck decides.
    The even cut is simulated too, and the result is never longer, by the same prediction.

    Raises ConfigurationError if nothing fits: then it says what comes nearest.
    """
    layers = Layers(profile)
    devices, batch = whole_number("devices", "p", devices), whole_number("batch", "B", batch)
    if isinstance(schedule, str):
        count = 2 * devices if microbatches is None else microbatches
        schedule = build_schedule(schedule, devices, count, chunks, recompute=recompute)
    elif not isinstance(schedule, Schedule):
        given = type(schedule).__name__
        raise ConfigurationError(f"schedule must be a name or a Schedule, got {given}; try '1f1b'")
    elif schedule.devices != devices:
        raise ConfigurationError(f"the table is for p = {schedule.devices} devices, not for {devices}")
    if "U" in schedule.ops:
        raise ConfigurationError(
            f"'{schedule.name}' updates weights on the way, so its steady state decides, not one step; plan for "
            f"'1f1b' with as many devices: the cut with the least bottleneck is the same"
        )
    if schedule.stages > len(layers):
        raise ConfigurationError(
            f"'{schedule.name}' has {schedule.stages} stages, and the model has {len(layers)} layers to cut between; "
            "take fewer devices or chunks"
        )
    links = Links.either(latency, bandwidth, links)
    links.require(devices)
    search = _Search(
        layers,
        schedule.for_batch(batch),
        batch,
        tuple(parse_speeds(speeds, devices)) or (1.0,) * devices,
        parse_limits(memory_limit, devices),
        links,
    )
    return search.plan(any_order=any_order)


def planned_profile(
    profile: CostProfile, devices: int, chunks: Sequence[int], *, batch: int, memory_limit: Limits = None, **link: Any
) -> CostProfile:
    """A profile for p devices from one of single layers, cut where it is best for 1F1B, interleaved where v > 1.

    Where nothing fits without recomputation, memory does not count. ``about["cuts"]`` says where the cuts are.
    """
    stages: dict[int, tuple[StageProfile, ...]] = {}
    cuts: dict[str, list[int]] = {}
    m = max(min(2 * devices, batch) // devices * devices, 1)
    for v in chunks:
        how: dict[str, Any] = {"schedule": "1f1b" if v == 1 else "interleaved", "microbatches": m, "chunks": v}
        try:
            plan = plan_cuts(profile, devices, batch=batch, memory_limit=memory_limit, **how, **link)
        except ConfigurationError:
            plan = plan_cuts(profile, devices, batch=batch, **how, **link)
        stages |= plan.profile.stages
        cuts[str(devices * v)] = list(plan.cuts)
    return replace(profile, devices=devices, stages=stages, about={**profile.about, "cuts": cuts})


@dataclass(frozen=True, eq=False)
class _Found:
    """One cut in one order, simulated. ``excess``: how far the fullest device is above its limit, 1 being the limit."""

    bounds: tuple[int, ...]
    order: tuple[int, ...]
    profile: CostProfile
    timeline: Timeline
    excess: float

    @property
    def worth(self) -> tuple[float, float, float]:
        """Less is better: what fits, then what is short, then what is balanced."""
        return max(self.excess, 1.0), self.timeline.makespan, max(self.timeline.busy)


@dataclass(frozen=True, eq=False)
class _Search:
    layers: Layers
    schedule: Schedule
    batch: int
    speeds: tuple[float, ...]
    limits: tuple[float, ...]
    links: Links

    def plan(self, *, any_order: bool) -> CutPlan:
        p, n, given = self.schedule.devices, self.schedule.stages, tuple(range(self.schedule.devices))
        alone = self._alone
        pairs = {self.links.of(a, b) for a, b in permutations(given, 2)}
        alike = len(set(zip(self.speeds, self.limits, strict=True))) == 1 and len(pairs) <= 1
        any_order = any_order and not alike
        if any_order and p > ANY_ORDER:
            raise ConfigurationError(
                f"any_order compares all orders of at most {ANY_ORDER} devices, there are {p}; give them in the order "
                "in which they shall stand, or plan for groups of equal ones"
            )
        small, rest = divmod(len(self.layers), n)
        even = self._try([s * small + min(s, rest) for s in range(n + 1)], given)
        starts, values = {(even.bounds, given): even}, []
        for paths in (False, True):
            value, bounds, order = self._shortest(paths=paths, any_order=any_order and alone)
            values.append(value if alone else math.inf)
            if bounds is not None:
                starts[bounds, order] = self._try(bounds, order)
        least, bound = values
        orders = list(permutations(given)) if any_order else [given]
        if math.comb(len(self.layers) - 1, n - 1) * len(orders) <= _ALL:
            seen = {(b, o): self._try(b, o) for b in self._all() for o in orders}
            exact = True
        else:
            seen, exact = self._around(starts, any_order=any_order), False
        best = min(seen.values(), key=lambda found: found.worth)
        if best.excess > 1 + 1e-9:
            raise ConfigurationError(self._excess(best))
        even_fits = even.excess <= 1 + 1e-9
        most = min(_NEAR * best.timeline.makespan, even.timeline.makespan if even_fits else math.inf)
        near = (found for found in seen.values() if found.excess <= 1 + 1e-9 and found.timeline.makespan <= most)
        best = min(near, key=lambda found: (max(found.timeline.busy), found.timeline.makespan))
        return CutPlan(
            self.schedule,
            self.batch,
            len(self.layers),
            best.bounds[1:-1],
            best.order,
            best.profile,
            best.timeline,
            even.timeline,
            even_fits,
            least if least < math.inf else None,
            self._bound(bound),
            exact,
            len(seen),
        )

    @property
    def _alone(self) -> bool:
        """Whether each stage has a device of its own."""
        return self.schedule.stages == self.schedule.devices and all(len(h) == 1 for h in self.schedule.placement)

    def _all(self) -> Iterator[tuple[int, ...]]:
        for inner in combinations(range(1, len(self.layers)), self.schedule.stages - 1):
            yield (0, *inner, len(self.layers))

    def _try(self, bounds: Sequence[int], order: tuple[int, ...]) -> _Found:
        schedule = self.schedule
        speeds = [self.speeds[order[homes[0]]] for homes in schedule.placement]
        profile = self.layers.cut(bounds, schedule.devices, speeds)
        timeline = simulate(schedule, profile.costs(self.batch, links=self.links.placed(order)), check=False)
        limits = [self.limits[device] for device in order]
        held = profile.memory(timeline) if min(limits) < math.inf else ()
        excess = max((one.total / limit for one, limit in zip(held, limits, strict=False)), default=0.0)
        return _Found(tuple(bounds), order, profile, timeline, excess)

    def _around(
        self, starts: dict[tuple[tuple[int, ...], tuple[int, ...]], _Found], *, any_order: bool
    ) -> dict[tuple[tuple[int, ...], tuple[int, ...]], _Found]:
        """From the best start on to the best neighbour that is better, until there is none; then from the next."""
        seen, left = dict(starts), max(_ACTIONS // len(self.schedule.table), 30)
        for now in sorted(starts.values(), key=lambda found: found.worth):
            better: _Found | None = now
            while better is not None:
                now, better = better, None
                near = [(tuple(bounds), now.order) for bounds in moved(now.bounds)]
                if any_order:
                    near += [(now.bounds, _swapped(now.order, a, b)) for a, b in combinations(now.order, 2)]
                for one in near:
                    if one in seen:
                        continue
                    if left == 0:
                        return seen
                    left -= 1
                    found = seen[one] = self._try(*one)
                    if found.worth < (better or now).worth:
                        better = found
        return seen

    def _shortest(self, *, paths: bool, any_order: bool) -> tuple[float, tuple[int, ...] | None, tuple[int, ...]]:
        """The dynamic program: (largest weight, bounds or None where nothing fits, order).

        A stage's weight is what it has to do in a step. With ``paths`` it is also what comes before a device's first
        action and after its last. Then links count too: what one has to carry in a step, and the way of a micro-batch
        to it and from it. For several stages a device it is the stages that are alike.
        """
        schedule, homes = self.schedule, [homes[0] for homes in self.schedule.placement]
        sums, once = self.layers.seconds(schedule, self.batch)
        before, _ = self.layers.seconds(schedule, self.batch, once=True)
        fastest, size = max(self.speeds), len(sums)
        work = np.where(np.tri(size, dtype=bool), math.inf, sums[None, :] - sums[:, None] + once)
        sent = np.zeros(size)
        sent[1:-1] = self.layers.sent(schedule, self.batch)[:-1]
        needs = self._needs()
        hops = list(permutations(range(schedule.devices), 2)) if any_order else list(pairwise(homes))
        late = [self._hop(*hop)[0] for hop in hops]
        late = [0.0, *accumulate([min(late)] * (len(homes) - 1) if any_order else late)]

        def weight(s: int, r: int) -> Array:
            found = work / self.speeds[r]
            if paths:
                found = found + (before / fastest)[:, None] + late[s]
            found[needs[s] > self.limits[r] * (1 + 1e-9)] = math.inf
            return found

        def border(a: int, b: int) -> Array:
            return sent * self._hop(a, b)[1] + before[-1] / fastest + late[-1] if paths else np.zeros(size)

        if any_order:
            least, bounds, order = bottleneck_in_any_order(weight, border, schedule.devices)
        else:
            (least, bounds), order = bottleneck(weight, border, homes), list(range(schedule.devices))
        return least, tuple(bounds) if least < math.inf else None, tuple(order)

    def _hop(self, a: int, b: int) -> tuple[float, float]:
        """From one device to the next: (latency there and back again, seconds per unpacked byte of the slower way)."""
        there, back = self.links.of(a, b), self.links.of(b, a)
        ops, apart = self.schedule.ops, a != b
        waits = "B" in ops and "I" not in ops  # W may run while a gradient of I is on its way
        late = there.latency + (back.latency if waits else 0.0)
        ways = (there, back) if "B" in ops or "I" in ops else (there,)
        return apart * late, apart * max(way.packing / way.bandwidth for way in ways)

    def _needs(self) -> list[Array]:
        """By stage, the bytes that layers i to j - 1 need there at least; nothing is said of devices with several."""
        size, schedule = len(self.layers) + 1, self.schedule
        if schedule.stages > schedule.devices or min(self.limits) == math.inf:
            return [np.zeros((size, size))] * schedule.stages
        states, alpha, beta = self.layers.bytes()
        ones = [1.0] * schedule.stages
        none = [0.0] * schedule.stages
        flying = peak_activation_bytes(schedule, Costs(activation_bytes=ones, waiting_bytes=none))
        b = self.batch / sum(schedule.weights)
        parts = [states + alpha + beta * b * flying[homes[0]] for homes in schedule.placement]
        return [part[None, :] - part[:, None] for part in parts]

    def _bound(self, paths: float) -> float:
        """No cut has a shorter makespan: ``paths`` of ``_shortest``; and one micro-batch goes through all layers."""
        schedule, fastest = self.schedule, max(self.speeds)
        sums, once = self.layers.seconds(schedule, self.batch)
        through, beside = self.layers.seconds(schedule, self.batch, once=True)
        found = [
            (through[-1] + schedule.stages * beside) / fastest,
            (sums[-1] + schedule.stages * once) / sum(self.speeds),
            paths,
        ]
        return float(max(value for value in found if value < math.inf))

    def _excess(self, best: _Found) -> str:
        held = best.profile.memory(best.timeline)
        limits = [self.limits[device] for device in best.order]
        r = max(range(len(held)), key=lambda r: held[r].total / limits[r])
        return (
            f"no cut was found that fits: the nearest, {list(best.bounds[1:-1])}, needs {format_bytes(held[r].total)} "
            f"on device {best.order[r]} ({held[r]}), and {format_bytes(limits[r])} are allowed; allow that much, take "
            "more micro-batches or devices, or recompute=True"
        )


def _swapped(order: tuple[int, ...], a: int, b: int) -> tuple[int, ...]:
    return tuple(b if device == a else a if device == b else device for device in order)
