"""The lower bound: no table is below it, and on small problems the true optimum is not far above."""

from __future__ import annotations

from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelab import Costs, build_schedule, simulate
from pipelab.schedules import recipes
from pipelab.simulation.search.bound import lower_bound
from pipelab.simulation.search.problem import Problem

TIMES = st.integers(1, 6).map(float)


def problem(p, m, homes, costs, limit=1e9):
    return Problem.of(homes, p, m, costs, [limit] * p, in_bytes=False)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 5), st.integers(1, 6), TIMES, TIMES, TIMES, st.sampled_from([0.0, 0.5, 2.0]))
def test_no_schedule_of_the_catalogue_takes_less(p, m, tF, tI, tW, latency):
    costs = Costs(forward=tF, backward=tI + tW, input_gradient=tI, weight_gradient=tW, latency=latency)
    for recipe in recipes().values():
        v = recipe.chunks or 2
        if recipe.updating is not None or recipe.name in ("naive", "chimera") or recipe.check(p, m, v) is not None:
            continue
        schedule = build_schedule(recipe.name, p, m, v)
        homes = [home for (home,) in schedule.placement]
        made = simulate(schedule, costs).makespan
        assert lower_bound(problem(p, m, homes, costs)) <= made * (1 + 1e-9)


@pytest.mark.parametrize("times", [(1, 1, 1), (1, 2, 1), (2, 1, 3)])
def test_on_two_devices_and_two_microbatches_it_is_the_optimum_of_all_orders(times):
    tF, tI, tW = times
    costs = Costs(forward=tF, backward=tI + tW, input_gradient=tI, weight_gradient=tW)
    made = problem(2, 2, [0, 1], costs)
    rows = [[a for a in range(made.size) if made.device[a] == r] for r in range(2)]
    ways = [[list(order) for order in permutations(row) if _sensible(made, order)] for row in rows]
    best = min(timed.makespan for pair in product(*ways) if (timed := made.timed(list(pair))) is not None)
    assert lower_bound(made) <= best <= lower_bound(made) * 1.05


def _sensible(made, order):
    """Each action after those of its own device that it needs; equal micro-batches in their order."""
    at = {action: k for k, action in enumerate(order)}
    local = all(at[needed] < at[a] for a in order for needed, _ in made.needs[a] if needed in at)
    return local and all(at[a] < at[a + 1] for a in order if a + 1 in at and a % 2 == 0)
