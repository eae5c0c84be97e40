"""Beside the true optimum of small problems: the search is within 5 % of it, the bound never above."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from pipelab import Costs
from pipelab.simulation.search import search_schedule
from pipelab.simulation.search.bound import lower_bound
from pipelab.simulation.search.problem import Problem

pytest.importorskip("scipy")
from tests.simulation.search.exact import optimum

EQUAL, LONG_I, LONG_W = (1, 1, 1), (2, 3, 1), (1, 2, 3)


def compare(p, m, v, times, limit, vee=False, seconds=1, **more):
    """(found, optimum, bound)."""
    stages = p * v
    homes = [*range(p), *reversed(range(p))] if vee else [s % p for s in range(stages)]
    each = {
        name: [float(time) * (1 + more.get("uneven", 0) * (s % 2)) for s in range(stages)]
        for name, time in zip(("forward", "input_gradient", "weight_gradient"), times, strict=True)
    }
    whole = [sum(pair) for pair in zip(each["input_gradient"], each["weight_gradient"], strict=True)]
    costs = Costs(**each, backward=whole, latency=more.get("latency", 0.0), **more.get("bytes", {}))
    problem = replace(Problem.of(homes, p, m, costs), limits=(float(limit),) * p)
    found = search_schedule(p, m, v, costs, limit, homes, seconds=seconds)
    return found, optimum(problem, found.makespan), lower_bound(problem)


def holds(found, best, bound):
    assert found.bound == bound <= best + 1e-9
    assert best <= found.makespan <= 1.05 * best


@pytest.mark.parametrize("times", [EQUAL, LONG_I, LONG_W])
@pytest.mark.parametrize(
    ("p", "m", "v", "limit", "vee", "more"),
    [
        (2, 3, 1, 99, False, {"uneven": 1}),
        (3, 4, 1, 2, False, {"latency": 1}),
        (2, 3, 2, 1, True, {}),
        (3, 2, 2, 2, False, {}),
        (3, 3, 2, 1, True, {}),
        (3, 3, 1, 25, False, {"bytes": {"activation_bytes": 10, "waiting_bytes": 4, "message_bytes": 2}}),
    ],
)
def test_a_few_small_problems(p, m, v, times, limit, vee, more):
    holds(*compare(p, m, v, times, limit, vee, **more))


def test_with_memory_for_k_microbatches_the_bound_is_the_optimum():
    """It was 18 before it knew of memory."""
    _, best, bound = compare(3, 4, 1, EQUAL, 1)
    assert best == bound == 28


@pytest.mark.slow
@pytest.mark.parametrize("times", [EQUAL, LONG_I])
@pytest.mark.parametrize("limit", [1, 2, 99])
@pytest.mark.parametrize(("p", "m"), list(product((2, 3), (2, 3, 4))))
@pytest.mark.parametrize(("v", "vee", "more"), [(1, False, {"uneven": 1}), (2, False, {}), (2, True, {"latency": 1})])
def test_the_grid(p, m, v, times, limit, vee, more):
    """In ten seconds."""
    holds(*compare(p, m, v, times, limit, vee, seconds=10, **more))
