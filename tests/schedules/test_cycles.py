"""Rings of waiting, apart from the sentences that the checker makes of them."""

from pipelab.schedules import Schedule, build_schedule
from pipelab.schedules.cycles import rings
from pipelab.schedules.dependencies import SlotGraph


def found(schedule, outstanding=None):
    return list(rings(SlotGraph(schedule.programs, schedule.placement), outstanding))


def test_a_sound_table_has_none():
    assert found(build_schedule("interleaved", 4, 8, 2)) == []


def test_each_knot_gives_one_shortest_ring():
    """Micro-batches 0 and 1 are tied up on devices 0 and 1; devices 2 and 3 have a knot of their own."""
    knot = Schedule.from_csv("0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n")
    [ring] = found(knot)
    assert [(wait.device, str(wait.reason.supplier)) for wait in ring] == [(0, "1B0"), (1, "0F1")]


def test_bounded_sends_add_waits_that_end_with_more_room():
    table = build_schedule("1f1b", 2, 4)
    assert [bool(found(table, outstanding)) for outstanding in (0, 1, 2)] == [True, False, False]
    assert all(isinstance(wait.reason, str) for wait in found(table, 0)[0])


def test_a_long_table_needs_no_recursion():
    one_by_one, all_first = build_schedule("1f1b", 1, 3000).programs[0], build_schedule("gpipe", 2, 3000).programs[1]
    [ring] = found(Schedule("knot", (one_by_one, all_first), ((0,), (1,)), (1.0,) * 3000))
    assert len(ring) == 2
