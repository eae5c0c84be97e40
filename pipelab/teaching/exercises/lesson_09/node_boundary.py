"""Exercise of lesson 9: where should a slow link between nodes lie?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from random import Random
from typing import Any

from pipelab import view
from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.judging import as_lists, kind_of, numbers, read_whole
from pipelab.teaching.exercises.lesson_09.mistakes import shown, the_only

_CUT, _COUNT, _ORDER = "which cut", "how many cross", "which order"
_NEAR = 1e-9


def _cut_case(costs: Sequence[float], sizes: Sequence[float], devices: int, inside: float, between: float) -> Case:
    layers = f"{len(costs)} layers" if len(costs) > 8 else f"costs {shown(costs)}, sizes {shown(sizes)}"
    words = f"{layers}, p = {devices}, inside {inside:g}, between {between:g}"
    return Case(_CUT, {"_given": [list(costs), list(sizes), devices, inside, between], "_words": words})


def _order_case(part: str, nodes: Sequence[int], chunks: int, order: Sequence[int] = ()) -> Case:
    words = f"nodes {shown(nodes)}, v = {chunks}" + (f", order {shown(order)}" if order else "")
    return Case(part, {"_nodes": list(nodes), "_v": chunks, "_order": list(order), "_words": words})


def _narrowing(random: Random, layers: int) -> tuple[list[float], list[float]]:
    """Like a ResNet: what leaves a layer shrinks with depth, and grows again at the head."""
    size, sizes = float(random.choice((32, 48, 64))), []
    for _ in range(layers):
        sizes.append(size)
        if random.random() < 0.35:
            size = max(size / 2, 2)
    return [float(random.randint(2, 9)) for _ in range(layers)], [*sizes[:-1], 100.0]


def _drawn(random: Random) -> list[Case]:
    cases: list[Case] = []
    while len(cases) < 8:
        devices = random.choice((2, 4, 4, 6))
        costs, sizes = _narrowing(random, random.randint(devices + 2, 14))
        if len(cases) % 3 == 2:
            sizes.reverse()
        inside = random.choice((4.0, 8.0, 16.0))
        case = _cut_case(costs, sizes, devices, inside, inside / random.choice((2, 4, 8)))
        if len(cases) % 2 or moved(case):
            cases.append(case)
    for _ in range(6):
        count = random.randint(2, 3)
        nodes = [node for node in range(count) for _ in range(random.randint(1, 6 // count))]
        random.shuffle(nodes)
        order = list(range(len(nodes)))
        random.shuffle(order)
        cases.append(_order_case(_COUNT, nodes, random.randint(1, 3), order))
        cases.append(_order_case(_ORDER, nodes, random.randint(1, 3)))
    return cases


def _ask(call: Call, case: Case) -> Any:
    if case.part == _CUT:
        return call("cut_for_nodes", *case["_given"])
    if case.part == _COUNT:
        return call("crossings", case["_nodes"], case["_order"], case["_v"])
    return call("best_order", case["_nodes"], case["_v"])


def _judge(case: Case, data: Any) -> Finding | None:
    return {_CUT: _judge_cut, _COUNT: _judge_count, _ORDER: _judge_order}[case.part](case, data)


# ---- which cut -------------------------------------------------------------------------------------------------------

Weight = Callable[[float, float, int, int, int], float]
"""(milliseconds of a stage's layers, bytes behind its last layer, stage, its first layer, its last) -> weight."""


def _links(devices: int, inside: float, between: float) -> list[float]:
    """The bandwidth behind each stage but the last."""
    return [between if k == devices // 2 - 1 else inside for k in range(devices - 1)]


def _weights(case: Case) -> dict[str, tuple[Weight, str]]:
    """The right weight, under "", and those of the usual mistakes, each with why it is one."""
    costs, _, p, inside, between = case["_given"]
    links = _links(p, inside, between)
    half = p // 2

    def sends(size: float, k: int, link: Sequence[float]) -> float:
        return size / link[k] if k < p - 1 else 0.0

    return {
        "": (lambda cost, size, k, i, j: max(cost, sends(size, k, links)), ""),
        "no messages": (
            lambda cost, size, k, i, j: cost,
            "It would be best if messages took no time. A stage is as slow as its layers or as its message.",
        ),
        "even": (
            lambda cost, size, k, i, j: float(abs((j - i + 1) - len(costs) / p) >= 1),
            "Each stage has as many layers as any other. Neither their times nor their bytes are even.",
        ),
        "one link": (
            lambda cost, size, k, i, j: max(cost, sends(size, k, [inside] * (p - 1))),
            f"It would be best if all links were like those inside a node. Behind stage {half - 1} the link is slow.",
        ),
        "all slow": (
            lambda cost, size, k, i, j: max(cost, sends(size, k, [between] * (p - 1))),
            f"It would be best if all links were slow. Only the one behind stage {half - 1} is.",
        ),
        "shifted": (
            lambda cost, size, k, i, j: max(
                cost, sends(size, k, [between if n == half else inside for n in range(p - 1)])
            ),
            f"Device {half - 1} is the last in the first node, so the slow link is behind stage {half - 1}.",
        ),
        "sum": (
            lambda cost, size, k, i, j: cost + sends(size, k, links),
            "Layers and message were added. A device sends one micro-batch while it computes the next: the longer of "
            "the two counts.",
        ),
        "multiplied": (
            lambda cost, size, k, i, j: max(cost, size * links[k] if k < p - 1 else 0.0),
            "Bytes were multiplied by the bandwidth. A message takes bytes / bandwidth.",
        ),
        "narrow": (
            lambda cost, size, k, i, j: size if k == half - 1 else 0.0,
            "It puts the boundary where the message is smallest, and forgets to balance the work.",
        ),
    }


def _each(case: Case, weight: Weight, cuts: Sequence[int]) -> list[float]:
    """The weight of each stage."""
    costs, sizes, *_ = case["_given"]
    return [
        weight(sum(costs[i:j]), sizes[j - 1], k, i, j - 1) for k, (i, j) in enumerate(pairwise((0, *cuts, len(costs))))
    ]


@reserved
def least(case: Case, weight: Weight) -> tuple[float, tuple[int, ...]]:
    """The least largest weight, and a cut that has it: stage by stage, the best for each number of layers so far."""
    costs, sizes, p, *_ = case["_given"]
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    for k in range(p):
        found: dict[int, tuple[float, tuple[int, ...]]] = {}
        for j in [len(costs)] if k == p - 1 else range(k + 1, len(costs) - (p - 2 - k)):
            found[j] = min(
                (max(value, weight(sum(costs[i:j]), sizes[j - 1], k, i, j - 1)), (*cuts, i))
                for i, (value, cuts) in best.items()
                if i < j
            )
        best = found
    value, cuts = best[len(costs)]
    return value, cuts[1:]


@reserved
def moved(case: Case) -> bool:
    """Whether the best cut for like links is not the best here."""
    weights = _weights(case)
    elsewhere = least(case, weights["one link"][0])[1]
    return max(_each(case, weights[""][0], elsewhere)) > least(case, weights[""][0])[0] * (1 + _NEAR)


def _judge_cut(case: Case, data: Any) -> Finding | None:
    costs, _, p, *_ = case["_given"]
    given = [read_whole(n, f"{case.words}: a cut") for n in numbers(data, f"{case.words}: cut_for_nodes")]
    start = f"{case.words}: cut_for_nodes returned {shown(given)}. "
    if len(given) == p and sum(given) == len(costs):
        return Finding(f"{start}These are numbers of layers. Return the first layer of each stage but stage 0.")
    if len(given) != p - 1:
        return Finding(f"{start}There are p = {p} stages: return the first layer of each but stage 0.")
    if any(b <= a for a, b in pairwise((0, *given, len(costs)))):
        return Finding(
            f"{start}Each stage needs a layer: first layers rise, from 1 on, and none is above {len(costs) - 1}."
        )
    weights = _weights(case)
    right = weights[""][0]
    mine, (wanted, best) = _each(case, right, given), least(case, right)
    if max(mine) <= wanted * (1 + _NEAR):
        return None
    k = mine.index(max(mine))
    told = f"Stage {k} weighs {mine[k]:g}, {_because(case, given, k)}. With {list(best)} no stage weighs more than "
    return Finding(f"{start}{told}{wanted:g}. {_cut_mistake(case, given)}".rstrip(), partial(_bars, case, mine, best))


def _because(case: Case, cuts: Sequence[int], k: int) -> str:
    costs, sizes, p, inside, between = case["_given"]
    first, last = (0, *cuts)[k], (*cuts, len(costs))[k] - 1
    work = sum(costs[first : last + 1])
    if k == p - 1 or work >= sizes[last] / _links(p, inside, between)[k]:
        return f"the time of layers {first} to {last}"
    where = "between the nodes" if k == p // 2 - 1 else "inside a node"
    return f"for {sizes[last]:g} bytes leave layer {last} over the link {where}"


def _cut_mistake(case: Case, given: Sequence[int]) -> str:
    """The usual mistake under which this cut is the best."""
    known = the_only(
        (max(_each(case, weight, given)) <= least(case, weight)[0] * (1 + _NEAR), why)
        for weight, why in _weights(case).values()
        if why
    )
    sizes, inside = case["_given"][1], case["_given"][3]
    last = sizes[-1] / inside >= max(_each(case, _weights(case)[""][0], given))
    return known or "The last stage sends nothing: the bytes behind the last layer do not count." * last


def _bars(case: Case, mine: Sequence[float], best: Sequence[int]) -> view.Picture:
    right = _each(case, _weights(case)[""][0], best)
    curves = {"Yours": list(mine), "A best cut": right}
    note = "A stage's weight: the longer of its layers and the message behind it. The largest decides."
    return view.plot_curves(range(len(mine)), curves, across="stage", up="milliseconds", title="Weights", note=note)


# ---- which order -----------------------------------------------------------------------------------------------------


@reserved
def crossing(nodes: Sequence[int], order: Sequence[int], chunks: int) -> int:
    """Messages of one micro-batch between nodes, activations and gradients."""
    places = [nodes[device] for device in order] * chunks
    return 2 * sum(a != b for a, b in pairwise(places))


def _judge_count(case: Case, data: Any) -> Finding | None:
    nodes, order, v = case["_nodes"], case["_order"], case["_v"]
    given, wanted = read_whole(data, f"{case.words}: crossings"), crossing(nodes, order, v)
    if given == wanted:
        return None
    p, row = len(nodes), [nodes[device] for device in order]
    inner, wrap = sum(a != b for a, b in pairwise(row)), row[-1] != row[0]
    known = [
        (wanted // 2, "That counts activations alone. For each of them a gradient comes back over the same link."),
        (
            2 * v * inner,
            f"The way round is missing: after place {p - 1} the next stage is at place 0, on another node here.",
        ),
        (
            2 * v * (inner + wrap),
            f"The way round was counted once too often. Behind the last of the p v = {p * v} stages nothing is sent.",
        ),
        (2 * inner, f"That is one round. A micro-batch passes all devices v = {v} times."),
        *(
            [(2 * (inner + wrap), f"That is one round, closed. A micro-batch passes all devices v = {v} times.")]
            if v > 1
            else ()
        ),
        (
            crossing(nodes, range(p), v),
            "That is the count for devices in the order 0, 1, 2, ... At place k stands device order[k].",
        ),
        (
            crossing(nodes, [order.index(d) for d in range(p)], v),
            "order was read the other way round. order[k] is the device at place k, not the place of device k.",
        ),
        (2 * (p * v - 1), "That is all messages. Count those alone whose two devices are on different nodes."),
    ]
    why = the_only((given == value, why) for value, why in known)
    rounds = " ".join(map(str, row * v)) if p * v <= 16 else " ".join(map(str, row)) + " ..."
    told = f"Stage by stage, a micro-batch visits the nodes {rounds}. Crossings on its way: {wanted // 2}."
    return Finding(f"{case.words}: crossings returned {given}, and there are {wanted}. {told} {why}".rstrip())


def _judge_order(case: Case, data: Any) -> Finding | None:
    nodes, v = case["_nodes"], case["_v"]
    listed = as_lists(data)
    if not isinstance(listed, list):
        return Finding(f"{case.words}: best_order should return a list of devices, it returned {kind_of(data)}")
    given = [read_whole(d, f"{case.words}: each device") for d in listed]
    start = f"{case.words}: best_order returned {shown(given)}. "
    if sorted(given) != list(range(len(nodes))):
        sorted_nodes = " Those are the nodes: name the devices." if given == sorted(nodes) else ""
        return Finding(f"{start}Each of the devices 0 to {len(nodes) - 1} should stand in it once.{sorted_nodes}")
    mine, fewest = (crossing(nodes, order, v) for order in (given, sorted(given, key=lambda d: nodes[d])))
    if mine <= fewest:
        return None
    row = [nodes[device] for device in given]
    why = "A micro-batch leaves a node and comes back to it later in the same round. Keep a node's devices together."
    if given == list(range(len(nodes))):
        why = "That is the order of their numbers. " + why
    elif row[0] == row[-1]:
        why += " This holds too if the ring of places closes inside a node: behind the last stage nothing is sent."
    return Finding(
        f"{start}At the places are the nodes {' '.join(map(str, row))}: {mine} messages cross, and {fewest} "
        f"are enough. {why}"
    )


EXERCISE = Exercise(
    name="node_boundary",
    lesson="09_messages",
    title="Where should the node boundary lie?",
    answers=("cut_for_nodes", "crossings", "best_order"),
    parts={_CUT: 2, _COUNT: 1, _ORDER: 1},
    visible=[
        _cut_case([6, 5, 6, 2], [16, 8, 4, 20], 2, 8, 2),
        _cut_case([3, 6, 1, 4, 6, 4, 3, 2], [24, 48, 48, 24, 12, 6, 3, 20], 4, 2, 0.25),
        _cut_case([2, 5, 6, 4, 2, 1, 5, 1], [24, 48, 24, 12, 6, 12, 6, 20], 4, 8, 4),
        _cut_case([4, 4, 4, 4, 4, 4, 4, 4], [4, 4, 8, 8, 16, 16, 32, 90], 4, 8, 2),
        _cut_case([5, 3, 4, 6, 2, 4, 5, 3, 6, 4, 7], [64, 64, 32, 32, 32, 16, 16, 8, 8, 8, 100], 6, 8, 2),
        _order_case(_COUNT, [0, 0, 1, 1], 1, [0, 1, 2, 3]),
        _order_case(_COUNT, [0, 0, 1], 3, [0, 1, 2]),
        _order_case(_COUNT, [0, 1, 1, 0, 1], 1, [3, 0, 1, 4, 2]),
        _order_case(_COUNT, [0, 1], 2, [0, 1]),
        _order_case(_COUNT, [0, 0, 1, 1], 2, [1, 2, 3, 0]),
        _order_case(_COUNT, [0, 0, 1, 1, 2], 3, [4, 0, 2, 1, 3]),
        _order_case(_ORDER, [0, 1], 1),
        _order_case(_ORDER, [0, 1, 0, 1], 1),
        _order_case(_ORDER, [0, 1, 1, 0], 2),
        _order_case(_ORDER, [2, 0, 1, 2, 1, 0], 3),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
