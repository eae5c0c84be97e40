"""Exercise of lesson 8: cut layers into stages so that the largest stage is as small as it can be."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

import numpy as np

from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.lesson_08.cuts import (
    as_pipeline,
    best_sizes,
    even,
    filled,
    nearest,
    read_sizes,
    some,
    times,
)


@reserved
def least_squares(costs: Sequence[float], stages: int) -> list[int]:
    """The cut with the least sum of squares: what balances on average."""
    sums = np.concatenate([[0.0], np.cumsum(costs)])
    squares = np.where(np.tri(len(sums), dtype=bool), np.inf, (sums[None, :] - sums[:, None]) ** 2)
    best, came = squares[0], []
    for _ in range(stages - 1):
        total = best[:, None] + squares
        came.append(total.argmin(0))
        best = total.min(0)
    end, sizes = len(costs), []
    for chosen in reversed(came):
        sizes.append(end - int(chosen[end]))
        end = int(chosen[end])
    return [end, *sizes[::-1]]


def _case(part: str, costs: Sequence[float], stages: int, what: str = "") -> Case:
    words = f"{what or f'costs {some(costs)}'}, {stages} stage{'s' * (stages > 1)}"
    return Case(part, {"costs": list(costs), "stages": stages, "_words": words})


def _many(random: Random, layers: int, stages: int) -> Case:
    """A model with an embedding, a head, wide layers here and there, and no two layers quite alike."""
    costs = [round(random.uniform(0.8, 1.2) * random.choice((1, 1, 1, 1, 2.5)), 2) for _ in range(layers)]
    costs[0], costs[-1] = round(random.uniform(2, 6), 2), round(random.uniform(3, 9), 2)
    return _case("large", costs, stages, f"{layers} layers, costs {some(costs)}")


def _drawn(random: Random) -> list[Case]:
    cases = []
    for k in range(10):
        layers = random.randint(3, 9)
        stages = layers if k == 0 else random.randint(2, layers - 1)
        costs = [random.randint(1, 9) for _ in range(layers)]
        if k % 2:
            costs[random.choice((0, -1))] += random.randint(8, 20)
        cases.append(_case("small", costs, stages))
    return [*cases, *(_many(random, random.randint(150, 200), random.randint(10, 16)) for _ in range(3))]


def _ask(call: Call, case: Case) -> Any:
    return call("best_cut", case["costs"], case["stages"])


def _judge(case: Case, data: Any) -> Finding | None:
    costs, stages = case["costs"], case["stages"]
    sizes = read_sizes(data, f"{case.words}: best_cut", len(costs), stages)
    mine, least = times(costs, sizes), max(times(costs, best_sizes(costs, [1.0] * stages)))
    if max(mine) <= least * (1 + 1e-9):
        return None
    k = mine.index(max(mine))
    start = (
        f"{case.words}: best_cut returned {some(sizes)}. Stage {k} then costs {mine[k]:g} and holds all others up. "
        f"There is a cut whose largest stage costs {least:g}. "
    )
    picture = partial(as_pipeline, mine, f"Your cut, {stages} stages") if stages <= 6 else None
    return Finding(start + _mistake(costs, stages, sizes), picture)


def _mistake(costs: Sequence[float], stages: int, sizes: list[int]) -> str:
    layers, shares = len(costs), [sum(costs) / stages] * stages
    known = [
        (even(layers, stages), "Equal numbers of layers are equal work only if all layers cost the same."),
        (
            [[*[1] * (stages - 1), layers - stages + 1], [layers - stages + 1, *[1] * (stages - 1)]],
            "Did you add the stages up? Their sum is the same for every cut. The step waits for the largest: take max.",
        ),
        (
            [filled(costs, shares)],
            "That is greedy: each stage stops before it is above the mean. What is left over falls to the last ones.",
        ),
        (
            [filled(costs, shares, over=True)],
            "That is greedy: each stage takes layers until it has the mean. One dear layer can carry it far above.",
        ),
        (
            [nearest(costs, shares)],
            "Each cut is as near as it can be to its share of the sum. But the stage between two cuts may miss both.",
        ),
        (
            [least_squares(costs, stages)],
            "That makes the sum of squares least. It is even on average, but a step waits for the largest stage alone.",
        ),
    ]
    for cuts, why in known:
        if sizes in cuts:
            return why
    backwards = max(times(costs, sizes[::-1]))
    if backwards <= max(times(costs, best_sizes(costs, [1.0] * stages))) * (1 + 1e-9):
        return "Read from the other end your numbers are right. Going back through a table finds the last stage first."
    return _neighbour(costs, sizes)


def _neighbour(costs: Sequence[float], sizes: list[int]) -> str:
    """The layer that helps at once, if there is one."""
    now = max(times(costs, sizes))
    for a, b in [(k, k + step) for k in range(len(sizes)) for step in (-1, 1) if 0 <= k + step < len(sizes)]:
        moved = list(sizes)
        moved[a], moved[b] = sizes[a] - 1, sizes[b] + 1
        if moved[a] and max(times(costs, moved)) < now * (1 - 1e-9):
            end = "last" if b > a else "first"
            return f"Moving the {end} layer of stage {a} to stage {b} alone would make the largest smaller."
    return "No single layer that moves makes it smaller. Several cuts have to move together, so try all last stages."


EXERCISE = Exercise(
    name="best_cut",
    lesson="08_where_to_cut",
    title="The best cut",
    answers=("best_cut",),
    parts={"small": 2, "large": 2},
    visible=[
        _case("small", [2, 3], 1),
        _case("small", [10, 1, 1, 1], 4),
        _case("small", [5, 1, 8, 5, 8, 8], 3),
        _case("small", [7, 3, 3, 5, 2], 3),
        _case("small", [4, 7, 3, 6], 3),
        _case("small", [1, 1, 1, 10], 3),
        _case("small", [1, 4, 4, 4, 3], 3),
        _case("small", [3, 9, 7, 1, 3], 3),
        _case("small", [3, 1, 2, 2, 3, 1], 4),
        _case("small", [8, 3, 3, 3, 3, 3, 3, 10], 3),
        _case("small", [2.5, 0.5, 4.25, 0.5, 1.5, 3.0, 0.75], 4),
        _case("large", [4.2, *[1.0] * 20, *[2.5] * 6, *[1.0] * 22, 9.5], 4, "48 layers, an embedding and a heavy head"),
        _many(Random(8), 60, 12),
        _many(Random(9), 200, 16),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
