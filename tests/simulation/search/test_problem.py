"""The search's own walk through a table says what the simulator says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelab import Costs, build_schedule, check_schedule, simulate
from pipelab.simulation.search.problem import Problem

COSTS = Costs(forward=1, backward=2, input_gradient=0.7, weight_gradient=1.3, latency=0.25)


@pytest.mark.parametrize(("name", "p", "m", "v"), [("zb-h1", 4, 7, 1), ("zb-v", 3, 6, 2), ("interleaved-zb", 4, 8, 3)])
def test_rows_take_as_long_and_hold_as_much_as_their_table(name, p, m, v):
    schedule = build_schedule(name, p, m, v)
    homes = [home for (home,) in schedule.placement]
    timeline = simulate(schedule, COSTS)
    peaks = timeline.peak_microbatches
    problem = replace(Problem.of(homes, p, m, COSTS), limits=peaks)
    rows = problem.rows_of(schedule)
    timed = problem.timed(rows)
    assert timed.makespan == pytest.approx(timeline.makespan)
    assert problem.schedule(rows, name).programs == schedule.programs
    assert all(problem.fits(row, r) for r, row in enumerate(rows))
    tighter = replace(problem, limits=tuple(peak - 0.1 for peak in peaks))
    assert not any(tighter.fits(row, r) for r, row in enumerate(rows))


def test_rows_that_wait_forever_have_no_times():
    problem = Problem.of([0, 1], 2, 1, COSTS)
    rows = problem.rows_of(build_schedule("zb-h1", 2, 1))
    assert problem.timed(rows) is not None
    assert problem.timed([list(reversed(row)) for row in rows]) is None


def test_tables_with_anything_but_F_I_W_and_B_are_none():
    problem = Problem.of([0, 1], 2, 2, COSTS)
    assert problem.rows_of(build_schedule("1f1b", 2, 2)) == [[0, 1, 12, 13], [2, 14, 3, 15]]
    assert problem.rows_of(build_schedule("1f1b", 2, 2, recompute=True)) is None
    assert problem.rows_of(build_schedule("1f1b", 2, 3)) is None
    assert problem.rows_of(build_schedule("chimera", 2, 2)) is None


def test_W_right_behind_I_becomes_a_whole_backward_where_that_takes_less():
    cheap = replace(COSTS, backward=1.5)
    rows = Problem.of([0, 1], 2, 3, COSTS).rows_of(build_schedule("zb-h1", 2, 3))
    assert Problem.of([0, 1], 2, 3, COSTS).merged(rows) == rows, "it takes as long"
    problem = Problem.of([0, 1], 2, 3, cheap)
    merged = problem.schedule(problem.merged(rows), "merged")
    assert "B" in merged.ops and check_schedule(merged) == []
    assert problem.timed(problem.merged(rows)).makespan == pytest.approx(simulate(merged, cheap).makespan)


def test_W_right_behind_I_becomes_a_whole_backward_where_that_needs_less_memory():
    """It takes as long; I leaves 15 where 10 were, and B nothing."""
    costs = replace(COSTS, activation_bytes=10.0, waiting_bytes=15.0)
    problem = Problem.of([0, 1], 2, 1, costs)
    rows = problem.rows_of(build_schedule("zb-h1", 2, 1))
    tight = replace(problem, limits=(10.0 + max(problem.more[-2:]),) * 2)
    assert not all(tight.fits(row, r) for r, row in enumerate(rows))
    assert all(tight.fits(row, r) for r, row in enumerate(tight.merged(rows)))
    little = Problem.of([0, 1], 2, 1, replace(costs, waiting_bytes=10.0))
    assert little.merged(rows) == rows


@pytest.mark.parametrize("name", ["1f1b", "zb-h1", "zb-h2"])
def test_bytes_times_and_messages_are_those_of_each_stage_and_microbatch(name):
    """7 sequences in 3 micro-batches; between I and W less is held, while I runs its gradient too."""
    costs = Costs(
        forward=[1, 2, 3],
        backward=[2, 3, 4],
        input_gradient=[0.5, 1, 2],
        weight_gradient=[1.5, 1.5, 2],
        message_bytes=[4.0, 6.0, 0.0],
        bandwidth=8.0,
        latency=0.5,
        activation_bytes=[10.0, 20.0, 30.0],
        waiting_bytes=[10.0, 3.0, 4.0],
    )
    schedule = build_schedule(name, 3, 5)
    made = simulate(schedule, costs, batch=7)
    problem = replace(Problem.of([0, 1, 2], 3, 5, costs, 7), limits=made.peak_bytes)
    rows = problem.rows_of(schedule)
    assert problem.timed(rows).makespan == pytest.approx(made.makespan)
    assert problem.in_bytes and all(problem.fits(row, r) for r, row in enumerate(rows))
    less = replace(problem, limits=tuple(peak - 0.1 for peak in made.peak_bytes))
    assert not any(less.fits(row, r) for r, row in enumerate(rows))
