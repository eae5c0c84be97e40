"""The lower bound: no table is below it. test_exact.py compares it with the true optimum."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelab import Costs, build_schedule, simulate
from pipelab.schedules import recipes
from pipelab.simulation.search.bound import lower_bound
from pipelab.simulation.search.problem import Problem

TIMES = st.integers(1, 6).map(float)


def problem(p, m, homes, costs, limit=math.inf):
    return replace(Problem.of(homes, p, m, costs), limits=(limit,) * p)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 5),
    st.integers(1, 6),
    TIMES,
    TIMES,
    TIMES,
    st.sampled_from([0.0, 0.5, 2.0]),
    st.sampled_from([1, 0.8, 0.4]),
    st.sampled_from(
        [{}, {"activation_bytes": 10.0, "waiting_bytes": 4.0}, {"activation_bytes": 10.0, "waiting_bytes": 15.0}]
    ),
)
def test_no_schedule_of_the_catalogue_takes_less(p, m, tF, tI, tW, latency, both, sizes):
    """Not even with what it holds as the limit, nor where a whole backward takes or needs less than its halves."""
    costs = Costs(
        forward=tF, backward=both * (tI + tW), input_gradient=tI, weight_gradient=tW, latency=latency, **sizes
    )
    for recipe in recipes().values():
        v = recipe.chunks or 2
        if recipe.updating is not None or recipe.name in ("naive", "chimera") or recipe.check(p, m, v) is not None:
            continue
        schedule = build_schedule(recipe.name, p, m, v)
        homes = [home for (home,) in schedule.placement]
        made = simulate(schedule, costs)
        limited = replace(Problem.of(homes, p, m, costs), limits=made.peak_bytes if sizes else made.peak_microbatches)
        assert lower_bound(limited) <= made.makespan * (1 + 1e-9)


@pytest.mark.parametrize(("m", "k"), [(4, 1), (6, 2), (8, 2)])
def test_with_room_for_k_microbatches_there_are_m_over_k_round_trips(m, k):
    """Device 0 of 3 holds each for 3 (tF + tI) + tW = 7. The last round also has F, I and W of the k - 1 others."""
    made = problem(3, m, [0, 1, 2], Costs(forward=1, backward=2), float(k))
    assert lower_bound(made) == m / k * 7 + 3 * (k - 1)
    assert lower_bound(replace(made, limits=(math.inf,) * 3)) < lower_bound(made)


def test_what_waits_for_its_weights_takes_less_room():
    """One micro-batch fits until its I; then the next may come, and W is put off."""
    small = Costs(forward=1, backward=2, activation_bytes=10.0, waiting_bytes=1.0)
    large = Costs(forward=1, backward=2, activation_bytes=10.0)
    assert lower_bound(problem(2, 3, [0, 1], large, 14.0)) == 15
    assert lower_bound(problem(2, 3, [0, 1], small, 14.0)) == 3 * 4 + 1
