"""A prediction, put together: the table compiled, priced, walked through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelab.errors import ScheduleError
from pipelab.schedules.action import format_slot
from pipelab.schedules.checker import check_schedule
from pipelab.schedules.compiled import Compiled, compiled
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.table import Array
from pipelab.simulation.costs import CostModel
from pipelab.simulation.links import Links, links_of
from pipelab.simulation.prices import Prices
from pipelab.simulation.walk import walk
from pipelab.timeline import Timeline
from pipelab.timeline.run import Run, Sent

__all__ = ["peaks", "predict"]


def predict(
    schedule: Schedule, costs: Sequence[CostModel], *, sequences: float | None, clock: str, check: bool
) -> tuple[Timeline, ...]:
    """A schedule that has its weights, under each of ``costs``; the rest as :func:`simulate` says."""
    made = _compiled(schedule, check=check)
    found = []
    for one in costs:
        prices = Prices(schedule, one)
        cost, size = prices.slot_costs(), prices.message_sizes(made)
        size, latency, sending = _under_way(made, size, links_of(one))
        start, end, arrived = walk(made, cost, latency, sending)
        run = Run.of_table(schedule.table, start, end, Sent(made, arrived, size), prices.bytes_kept())
        found.append(Timeline.of_run(schedule, run, clock=clock, unit=one.unit, sequences=sequences))
    return tuple(found)


def peaks(schedule: Schedule, costs: CostModel) -> tuple[float, ...]:
    """The most activation bytes on each device, by its order alone."""
    kept = Prices(schedule, costs).bytes_kept()
    if kept is None:
        return ()
    table = schedule.table
    position = np.arange(len(table.first)) - np.repeat(table.slot_bounds[:-1], np.diff(table.slot_bounds))
    return Run.of_table(table, position, position + 1.0, kept=kept).peak_bytes()


def _under_way(made: Compiled, size: Array, links: Links) -> tuple[Array, float | Array, Array | None]:
    """(bytes, latency, time on the channel) of messages.

    The latency is one number if all have the same link; for no time on the channel there is None.
    """
    latency: float | Array = links.latency
    bandwidth: float | Array = links.bandwidth
    packing: float | Array = links.usual.packing
    if not links.uniform:
        p, device = made.table.devices, made.table.device
        links.require(p)
        pair, which = np.unique(device[made.producer] * p + device[made.consumer], return_inverse=True)
        found = [links.of(*divmod(one, p)) for one in pair.tolist()]
        latency = np.array([link.latency for link in found])[which]
        bandwidth = np.array([link.bandwidth for link in found])[which]
        packing = np.array([link.packing for link in found])[which]
    size = packing * size
    sending = size / bandwidth
    return size, latency, sending if sending.any() else None


def _compiled(schedule: Schedule, *, check: bool) -> Compiled:
    """The table compiled, or, if it is wrong, what there is to say about it."""
    if schedule.resolved is not None:
        return schedule.resolved
    violations = check_schedule(schedule) if check else []
    if violations:
        raise ScheduleError.refuse(schedule.name, violations)
    made = compiled(schedule.graph, schedule.table)
    ran = set(made.order.tolist())
    if len(ran) < len(schedule.table.first):
        slots = [(slot, device) for device, program in enumerate(schedule.programs) for slot in program]
        stuck = [f"{format_slot(slot)} on device {device}" for k, (slot, device) in enumerate(slots) if k not in ran]
        raise ScheduleError(f"the simulation is stuck: {len(stuck)} actions wait forever, the first is {stuck[0]}")
    return made
