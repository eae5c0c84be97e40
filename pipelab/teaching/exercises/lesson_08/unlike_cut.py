"""Exercise of lesson 8: cut for devices of unlike speed, in the order given and in the best one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import as_lists, kind_of, numbers, read_whole
from pipelab.teaching.exercises.lesson_08.cuts import (
    as_pipeline,
    best_placed,
    best_sizes,
    even,
    filled,
    nearest,
    read_sizes,
    some,
    times,
)

GIVEN, ANY = "given order", "any order"


def _case(part: str, costs: Sequence[float], speeds: Sequence[float]) -> Case:
    words = f"costs {some(costs)}, speeds {some(speeds)}"
    return Case(part, {"costs": list(costs), "speeds": list(speeds), "_words": words})


def _drawn(random: Random) -> list[Case]:
    cases = []
    for k in range(14):
        part = GIVEN if k < 7 else ANY
        p = random.randint(2, 6 if part == GIVEN else 4)
        costs = [random.randint(1, 9) for _ in range(random.randint(p, 12 if part == GIVEN else 9))]
        costs[random.choice((0, -1))] += random.choice((0, 6, 12))
        cases.append(_case(part, costs, [random.choice((0.5, 1, 1, 1.5, 2, 3, 4)) for _ in range(p)]))
    return cases


def _ask(call: Call, case: Case) -> Any:
    return call("cut_for" if case.part == GIVEN else "best_order", case["costs"], case["speeds"])


def _judge(case: Case, data: Any) -> Finding | None:
    if case.part == ANY:
        return _judge_order(case, data)
    costs, speeds = case["costs"], case["speeds"]
    sizes = read_sizes(data, f"{case.words}: cut_for", len(costs), len(speeds))
    mine, least = times(costs, sizes, speeds), max(times(costs, best_sizes(costs, speeds), speeds))
    if _reaches(max(mine), least):
        return None
    k = mine.index(max(mine))
    return Finding(
        f"{case.words}: cut_for returned {some(sizes)}. Device {k}, of speed {speeds[k]:g}, then takes {mine[k]:.4g}, "
        f"and a cut exists whose slowest takes {least:.4g}. {_mistake(costs, speeds, sizes)}",
        partial(as_pipeline, mine, f"Your cut, speeds {some(speeds)}"),
    )


def _reaches(value: float, least: float) -> bool:
    return value <= least * (1 + 1e-9)


def _mistake(costs: Sequence[float], speeds: Sequence[float], sizes: list[int]) -> str:
    layers, p = len(costs), len(speeds)
    shares = [sum(costs) * speed / sum(speeds) for speed in speeds]
    counts = [layers * speed / sum(speeds) for speed in speeds]
    wholes = [max(round(count), 1) for count in counts], [max(int(count), 1) for count in counts]
    # Before speeds are looked at at all: what a cut for other speeds would be.
    if sizes == best_sizes(costs, [1 / speed for speed in speeds]):
        return "It is the best cut if a sum is multiplied by the speed. A faster device takes less time: divide."
    if sizes == best_sizes(costs, [1.0] * p):
        return "It is the best cut for equal devices. Here they are not: a sum is divided by the speed of its device."
    if sizes == best_sizes(costs, speeds[::-1]):
        return "It would be best if the devices stood in the other order. speeds[0] is where the first layers go."
    if sizes in ([*whole[:-1], layers - sum(whole[:-1])] for whole in wholes) or sizes in wholes:
        return "The numbers of layers are in proportion to the speeds. But layers cost differently: compare their sums."
    if sizes in even(layers, p):
        return "Equal numbers of layers look neither at costs nor at speeds."
    if sizes in (filled(costs, shares), filled(costs, shares, over=True), nearest(costs, shares)):
        return (
            "Each device got about its share of the work, one after the other. Nobody planned what is left to the last."
        )
    return "Which stage can end where? Try each number of layers for the last device, and the best cut before it."


def _judge_order(case: Case, data: Any) -> Finding | None:
    costs, speeds = case["costs"], case["speeds"]
    p, start = len(speeds), f"{case.words}: best_order"
    data = as_lists(data)
    if not isinstance(data, list) or len(data) != 2 or not isinstance(data[0], list):
        what = f"a list of {len(data)}" if isinstance(data, list) else kind_of(data)
        raise Refused(f"{start} should return two lists, (order, sizes), it returned {what}")
    order = [read_whole(device, f"{start}, an entry of order,") for device in numbers(data[0], f"{start}, order,")]
    if sorted(order) != list(range(p)):
        raise Refused(f"{start}: order is {some(order)}. It should have each device 0 to {p - 1} once.")
    sizes = read_sizes(data[1], f"{start}, sizes,", len(costs), p)
    chosen, wanted = best_placed(costs, speeds)
    least = max(times(costs, wanted, [speeds[r] for r in chosen]))
    placed = [speeds[r] for r in order]
    mine = times(costs, sizes, placed)
    if _reaches(max(mine), least):
        return None
    k = mine.index(max(mine))
    return Finding(
        f"{start} returned the order {some(order)} with {some(sizes)} layers. Device {order[k]} at place {k}, of speed "
        f"{placed[k]:g}, then takes {mine[k]:.4g}. There are an order and a cut whose slowest takes {least:.4g}. "
        f"{_order_mistake(costs, speeds, order, sizes, least)}",
        partial(as_pipeline, mine, f"Your order, speeds {some(placed)}"),
    )


def _order_mistake(
    costs: Sequence[float], speeds: Sequence[float], order: list[int], sizes: list[int], least: float
) -> str:
    p = len(order)
    place = [order.index(r) for r in range(p)]
    ways = [
        (order, [sizes[r] for r in order], "`sizes` should be by place in the pipeline. Yours is by device."),
        (
            place,
            sizes,
            "`order` should say which device stands at each place. Yours says at which place each device stands.",
        ),
        (
            place,
            [sizes[k] for k in place],
            "`order` and `sizes` should both go by places: which device stands there, and how many layers it has.",
        ),
    ]
    for devices, layers, why in ways:
        if _reaches(max(times(costs, layers, [speeds[r] for r in devices])), least):
            return why
    placed = [speeds[r] for r in order]
    falling, rising = (sorted(speeds, reverse=way) for way in (True, False))
    here = max(times(costs, best_sizes(costs, placed), placed))
    if not _reaches(max(times(costs, sizes, placed)), here):
        return f"In your own order {here:.4g} is possible. {_mistake(costs, placed, sizes)}"
    if placed in (falling, rising) and len(set(speeds)) > 1:
        return (
            "The devices are sorted by speed, and cut well. But a fast device belongs where a group of layers is dear, "
            "and that may be anywhere. Compare all orders."
        )
    if order == list(range(p)):
        return "That is the best cut in the order given. Another order is better."
    return "That is the best cut in your order. Compare all orders, each with its own best cut."


EXERCISE = Exercise(
    name="unlike_cut",
    lesson="08b_unlike_devices",
    title="Unlike devices",
    answers=("cut_for", "best_order"),
    parts={GIVEN: 2, ANY: 2},
    visible=[
        _case(GIVEN, [2, 3], [0.5]),
        _case(GIVEN, [5, 4, 2, 3, 7], [4, 1, 2]),
        _case(GIVEN, [4, 1, 1, 1, 1], [2, 1]),
        _case(GIVEN, [1, 1, 1, 6], [1, 1, 3]),
        _case(GIVEN, [3, 1, 4, 1, 5, 9, 2, 6], [2, 1, 4]),
        _case(GIVEN, [8, 2, 2, 2, 2, 2, 2, 2, 2, 10], [1, 0.5, 2, 1.5]),
        _case(GIVEN, [2, 3, 5, 2, 7, 1, 4, 4, 2, 6, 3, 8], [1, 3, 1, 0.5, 2, 2]),
        _case(ANY, [2, 3], [0.5]),
        _case(ANY, [4, 3, 1, 9], [1, 4, 3]),
        _case(ANY, [2, 1], [1, 2]),
        _case(ANY, [1, 6, 1], [1, 1, 3]),
        _case(ANY, [1, 1, 9, 2, 2], [1, 2, 4]),
        _case(ANY, [5, 1, 1, 1, 7, 1, 2], [2, 1, 1.5, 3]),
        _case(ANY, [4, 3, 8, 1, 2, 6, 5, 2], [1, 1, 2, 3, 1, 4]),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
