"""The lesson's claims, by the simulator."""

import pytest

from pipelab.schedules import Schedule, build_schedule, check_schedule
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


def test_what_the_lesson_changes_in_gpipes_table():
    """The repairs and changes that *Try it* under *Break it* asks for, and how long each takes."""

    def units(changes):
        rows = [[f"{r}{a}" for a in changes.get(r, "F0 F1 F2 F3 B0 B1 B2 B3").split()] for r in range(4)]
        table = Schedule.from_rows(rows)
        return simulate(table).makespan if not check_schedule(table) else None

    early = "F0 F1 F2 B0 F3 B1 B2 B3"
    assert units({}) == 14
    assert units({1: early}) is None
    assert units({1: early, 2: early}) is None
    assert units({1: early, 2: early, 3: early}) == 18
    assert units({1: early, 2: "F0 F1 B0 F2 B1 F3 B2 B3", 3: "F0 B0 F1 B1 F2 B2 F3 B3"}) == 14
    assert units({2: "F1 F0 F2 F3 B0 B1 B2 B3"}) == 16
    back = "F0 F1 F2 F3 B3 B2 B1 B0"
    assert units(dict.fromkeys(range(4), back)) == 14
    assert units({1: back}) == 20
