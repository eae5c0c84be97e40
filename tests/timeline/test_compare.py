from dataclasses import replace

import pytest

from pipelab import ConfigurationError, Costs, compare, simulate
from pipelab.schedules import build_schedule
from tests import tables


def run(name, p=4, m=4, costs=None, chunks=None, **more):
    return simulate(build_schedule(name, p, m, chunks), costs or Costs(), **more)


def test_a_run_twice_as_slow_in_its_backwards_is_told_op_by_op():
    laid = compare(run("1f1b"), run("1f1b", costs=Costs(forward=1, backward=2)))
    assert laid.duration_ratios == {"B": 2, "F": 1}
    assert laid.makespan_ratio == 21 / 14
    assert laid.bubble_difference == pytest.approx(0)
    assert laid.same_order


def test_duration_ratios_are_medians_so_that_one_slow_action_does_not_count():
    before = run("gpipe", p=1, m=5)
    first, *others = before.spans
    assert (
        compare(before, replace(before, spans=(replace(first, end=first.end + 50), *others))).duration_ratios["F"] == 1
    )


def test_fused_slots_are_told_under_their_ops():
    fused = tables.read(tables.FUSED)
    assert compare(simulate(fused), simulate(fused, Costs(fused={"FB": 0.75}))).duration_ratios == {
        "B": 1,
        "F": 1,
        "F+B": 0.75,
    }


def test_another_order_is_told_apart():
    laid = compare(run("gpipe"), run("1f1b"))
    assert not laid.same_order
    assert laid.makespan_ratio == 1


def test_timelines_of_different_p_cannot_be_laid_over_each_other():
    with pytest.raises(ConfigurationError, match=r"timelines of 4 and 2 devices.*same p"):
        compare(run("gpipe", p=4), run("gpipe", p=2))


def test_the_comparison_can_be_read_as_a_table():
    table = compare(run("gpipe"), run("1f1b", clock="unit")).table()
    assert [line.split() for line in table.splitlines()] == [
        ["predicted", "unit", "difference"],
        ["makespan", "14", "units", "14", "units", "+0.0%"],
        ["bubble", "fraction", "42.9%", "42.9%", "+0.0", "points"],
        ["utilisation", "57.1%", "57.1%", "+0.0", "points"],
        ["peak", "micro-batches", "4", "4", "4", "4", "4", "3", "2", "1"],
        ["messages", "24", "24"],
    ]


def test_the_table_says_how_far_the_second_is_from_the_first():
    slower = run("interleaved", chunks=2, costs=Costs(forward=1, backward=2)), run("1f1b", costs=Costs(backward=2))
    assert (
        compare(*slower).table()
        == """\
                      predicted  predicted    difference
makespan             16.5 units   21 units        +27.3%
bubble fraction           27.3%      42.9%  +15.6 points
utilisation               72.7%      57.1%  -15.6 points
peak micro-batches  4 4 3.5 2.5    4 3 2 1
messages                     56         24"""
    )


def test_makespans_in_different_units_are_not_told_apart():
    table = compare(run("1f1b"), run("1f1b", costs=Costs(unit="s"))).table()
    assert table.splitlines()[1].split() == ["makespan", "14", "units", "14", "s"]
