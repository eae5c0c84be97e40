"""The lesson's claims, by the simulator."""

import pytest

from pipelab.schedules import build_schedule
from pipelab.simulation import Costs, simulate


def test_the_lessons_three_waits_of_a_device_and_their_sum():
    p, m, f, b = 5, 3, 2, 7
    run = simulate(build_schedule("gpipe", p, m), Costs(forward=f, backward=b))
    for r in range(p):
        waits = [gap.end - gap.start for gap in run.gaps(r)]
        wanted = [r * f, (p - 1 - r) * (f + b), r * b]
        assert waits == [wait for wait in wanted if wait]
        assert sum(waits) == (p - 1) * (f + b)


@pytest.mark.parametrize("m", [1, 4, 16])
def test_recomputation_adds_as_many_forwards_as_there_are_microbatches(m):
    p, f, b = 4, 2, 3
    for ahead in (1, 2):
        run = simulate(build_schedule("gpipe", p, m, recompute=True), Costs(forward=f, backward=b, recompute=ahead))
        assert run.makespan == m * (f + ahead + b) + (p - 1) * (f + b)
