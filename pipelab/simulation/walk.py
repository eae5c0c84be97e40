"""The walk through a compiled table that gives every slot its time: plain numbers in one loop, linear in its slots."""

from __future__ import annotations

import math
from itertools import repeat

import numpy as np

from pipelab.schedules.compiled import Compiled
from pipelab.schedules.table import Array

__all__ = ["walk"]


def walk(made: Compiled, costs: Array, latency: float | Array, sending: Array | None) -> tuple[Array, Array, Array]:
    """(start of each slot, its end, arrival of each message) where slots take ``costs``, all in the table's order.

    A message takes ``latency``, one for all or an array; before that it keeps its channel busy for ``sending`` (None:
    for no time).
    """
    device = made.device.tolist()
    cost = costs[made.order].tolist()
    if sending is None and not made.apart:
        # A channel is never busy, so a message is there a latency after the slot that it came from.
        started, ended = _without_channels(made, device, cost, latency)
        arrived = np.array(ended)[made.sender] + latency
    else:
        started, arrivals = _through_channels(made, device, cost, latency, sending)
        arrived = np.array(arrivals)
    start = np.full(len(costs), math.nan)
    start[made.order] = started
    return start, start + costs, arrived


def _without_channels(
    made: Compiled, device: list[int], cost: list[float], latency: float | Array
) -> tuple[list[float], list[float]]:
    free = [0.0] * made.table.devices
    started: list[float] = []
    ended: list[float] = []
    late = np.broadcast_to(latency, len(made.sender)).tolist()
    several = {n: [(int(made.sender[k]), late[k]) for k in messages] for n, messages in made.several.items()}
    lates = np.append(late, 0.0)[made.need].tolist() if np.ndim(latency) else repeat(latency)
    for r, source, duration, wait in zip(device, made.source.tolist(), cost, lates, strict=False):
        time = free[r]
        if source >= 0:
            there = ended[source] + wait
            if there > time:
                time = there
        elif source == -2:
            time = max(time, *(ended[one] + wait for one, wait in several[len(started)]))
        started.append(time)
        time += duration
        ended.append(time)
        free[r] = time
    return started, ended


def _through_channels(
    made: Compiled, device: list[int], cost: list[float], latency: float | Array, sending: Array | None
) -> tuple[list[float], list[float]]:
    """Messages of one channel leave one after another."""
    free, channel_free = [0.0] * made.table.devices, [0.0] * made.channels
    started: list[float] = []
    ended: list[float] = []
    arrived: list[float] = []
    sends = np.bincount(made.sender, minlength=len(made.order)).tolist()
    channel, need = made.channel.tolist(), made.need.tolist()
    takes, late = (np.broadcast_to(x, len(channel)).tolist() for x in (0.0 if sending is None else sending, latency))
    for n, (r, message, duration) in enumerate(zip(device, need, cost, strict=True)):
        time = free[r]
        if message >= 0:
            time = max(time, arrived[message])
        elif message == -2:
            time = max(time, *(arrived[one] for one in made.several[n]))
        if n in made.apart:
            time = max(time, *(ended[other] for other in made.apart[n]))
        started.append(time)
        free[r] = time = time + duration
        ended.append(time)
        for _ in range(sends[n]):
            k = len(arrived)
            leaves = max(time, channel_free[channel[k]]) + takes[k]
            channel_free[channel[k]] = leaves
            arrived.append(leaves + late[k])
    return started, arrived
