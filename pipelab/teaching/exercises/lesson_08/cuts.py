"""Cuts for lesson 8: reading one, what its stages cost, the best one, and cuts that usual mistakes give."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from pipelab import view
from pipelab.schedules import build_schedule
from pipelab.schedules.reserved import reserved
from pipelab.schedules.table import Array
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.definition import Refused
from pipelab.teaching.exercises.judging import as_lists, numbers, read_whole
from pipelab.tuning.planning.partition import Weight, bottleneck, bottleneck_in_any_order

Values = Sequence[float]


def times(costs: Values, sizes: Sequence[int], speeds: Values = ()) -> list[float]:
    """What each stage takes: the sum of its layers, over the speed of its device."""
    bounds = [0, *accumulate(sizes)]
    fast = speeds or [1.0] * len(sizes)
    return [sum(costs[a:b]) / speed for (a, b), speed in zip(pairwise(bounds), fast, strict=True)]


def _weight(costs: Values, speeds: Values) -> Weight:
    sums = np.concatenate([[0.0], np.cumsum(costs)])
    work = np.where(np.tri(len(sums), dtype=bool), np.inf, sums[None, :] - sums[:, None])
    return lambda stage, device: work / speeds[device]


def _no_link(device: int, other: int) -> Array:
    return np.zeros(1)


@reserved
def best_sizes(costs: Values, speeds: Values) -> list[int]:
    """A cut whose largest time is least, for the devices in the order given."""
    _, bounds = bottleneck(_weight(costs, speeds), _no_link, range(len(speeds)))
    return [b - a for a, b in pairwise(bounds)]


@reserved
def best_placed(costs: Values, speeds: Values) -> tuple[list[int], list[int]]:
    """(the device at each place, how many layers each place has), the largest time being least over all orders."""
    _, bounds, order = bottleneck_in_any_order(_weight(costs, speeds), _no_link, len(speeds))
    return order, [b - a for a, b in pairwise(bounds)]


def read_sizes(data: Any, start: str, layers: int, stages: int) -> list[int]:
    """Numbers of layers. Raises Refused, with a sentence that begins with ``start``, where they make no cut."""
    data = as_lists(data)
    if isinstance(data, list) and any(isinstance(entry, list) for entry in data):
        raise Refused(f"{start} should be one number for each stage. Return how many layers it has, not the layers.")
    found = [read_whole(size, f"{start}, an entry,") for size in numbers(data, start)]
    shown = f"{start} is {some(found)}. "
    if len(found) == stages and min(found) >= 1 and sum(found) == layers:
        return found
    rises = all(a < b for a, b in pairwise(found)) and bool(found) and min(found) >= 0 and max(found) <= layers
    lengths = {stages - 1: True, stages: layers in found or 0 in found, stages + 1: {0, layers} <= set(found)}
    if rises and lengths.get(len(found), False):
        raise Refused(f"{shown}Those are the places of the cuts. Return how many layers lie between them.")
    if len(found) != stages:
        raise Refused(f"{shown}It should have one number for each stage, {stages} in all.")
    if min(found) < 1:
        raise Refused(f"{shown}Stage {found.index(min(found))} has no layer. Its device would idle for the whole step.")
    lost = layers - sum(found)
    what = f"{abs(lost)} {'is' if abs(lost) == 1 else 'are'} in {'no stage' if lost > 0 else 'two stages'}"
    raise Refused(f"{shown}The numbers add up to {sum(found)}, and the model has {layers} layers: {what}.")


def some(values: Sequence[float]) -> str:
    """A list, shortened in the middle."""
    shown = [f"{value:g}" for value in values]
    if len(shown) > 16:
        shown = [*shown[:8], "...", *shown[-4:]]
    return f"[{', '.join(shown)}]"


def even(layers: int, stages: int) -> list[list[int]]:
    """Cuts into equal numbers of layers, as various people round."""
    small, rest = divmod(layers, stages)
    return [
        [small + 1] * rest + [small] * (stages - rest),
        [small] * (stages - rest) + [small + 1] * rest,
        [small] * (stages - 1) + [small + rest],
    ]


def filled(costs: Values, shares: Values, *, over: bool = False) -> list[int]:
    """Greedy: each stage takes layers as long as its share lasts (``over``: until it is used up), one at least."""
    sizes, at = [], 0
    for k, share in enumerate(shares[:-1]):
        most = len(costs) - at - (len(shares) - 1 - k)
        n, held = 1, costs[at]
        while n < most and (held < share if over else held + costs[at + n] <= share * (1 + 1e-9)):
            held, n = held + costs[at + n], n + 1
        sizes.append(n)
        at += n
    return [*sizes, len(costs) - at]


def nearest(costs: Values, shares: Values) -> list[int]:
    """Each cut where the sum up to it is nearest to what the stages before should have."""
    sums, wanted = [0.0, *accumulate(costs)], list(accumulate(shares))[:-1]
    bounds = [0, *(min(range(len(sums)), key=lambda j: abs(sums[j] - goal)) for goal in wanted), len(costs)]
    return [b - a for a, b in pairwise(bounds)]


def as_pipeline(stages: Values, title: str) -> view.Picture:
    """One step of 1F1B whose stages take this: their forward a third, their backward the rest."""
    table = build_schedule("1f1b", len(stages), len(stages) + 2)
    costs = Costs([time / 3 for time in stages], [time * 2 / 3 for time in stages])
    return view.plot_schedules([simulate(table, costs)], [title])
