"""The search's own walk through a table says what the simulator says."""

from __future__ import annotations

import pytest

from pipelab import Costs, build_schedule, simulate
from pipelab.simulation.search.problem import Problem

COSTS = Costs(forward=1, backward=2, input_gradient=0.7, weight_gradient=1.3, latency=0.25)


@pytest.mark.parametrize(("name", "p", "m", "v"), [("zb-h1", 4, 7, 1), ("zb-v", 3, 6, 2), ("interleaved-zb", 4, 8, 3)])
def test_rows_take_as_long_and_hold_as_much_as_their_table(name, p, m, v):
    schedule = build_schedule(name, p, m, v)
    homes = [home for (home,) in schedule.placement]
    timeline = simulate(schedule, COSTS)
    peaks = timeline.peak_microbatches
    problem = Problem.of(homes, p, m, COSTS, peaks, in_bytes=False)
    rows = problem.rows_of(schedule)
    timed = problem.timed(rows)
    assert timed.makespan == pytest.approx(timeline.makespan)
    assert problem.schedule(rows, name).programs == schedule.programs
    assert all(problem.fits(row, r) for r, row in enumerate(rows))
    tighter = Problem.of(homes, p, m, COSTS, [peak - 0.1 for peak in peaks], in_bytes=False)
    assert not any(tighter.fits(row, r) for r, row in enumerate(rows))


def test_rows_that_wait_forever_have_no_times():
    problem = Problem.of([0, 1], 2, 1, COSTS, [9, 9], in_bytes=False)
    rows = problem.rows_of(build_schedule("zb-h1", 2, 1))
    assert problem.timed(rows) is not None
    assert problem.timed([list(reversed(row)) for row in rows]) is None


def test_a_whole_backward_becomes_two_and_other_tables_are_none():
    problem = Problem.of([0, 1], 2, 2, COSTS, [9, 9], in_bytes=False)
    whole = problem.rows_of(build_schedule("1f1b", 2, 2))
    assert sorted(action for row in whole for action in row) == list(range(problem.size))
    assert problem.rows_of(build_schedule("1f1b", 2, 2, recompute=True)) is None
    assert problem.rows_of(build_schedule("1f1b", 2, 3)) is None
    assert problem.rows_of(build_schedule("chimera", 2, 2)) is None
