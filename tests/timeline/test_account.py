from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab import Costs, build_schedule, simulate
from pipelab.schedules.updates import over
from pipelab.timeline.account import KINDS, account, long_run_bubble
from tests.strategies import sound_tables
from tests.view.scenes import SPLIT, UPDATES


def of(name, p, m, v=None, **costs):
    schedule = build_schedule(name, p, m, v, recompute=costs.pop("recompute", False))
    return account(simulate(schedule, Costs(**costs)))


@given(sound_tables(), st.sampled_from([0, 0.5]))
def test_work_and_every_kind_of_idle_time_make_up_the_makespan(schedule, latency):
    timeline = simulate(schedule, Costs(forward=1, backward=2, latency=latency))
    found = account(timeline)
    for row, busy in zip(found.rows, timeline.busy, strict=True):
        assert sum(row) == pytest.approx(timeline.makespan)
        assert row[0] == pytest.approx(busy)


def test_a_device_of_1f1b_fills_waits_and_drains():
    """Device 1 of 4: micro-batch 0 comes at t = 1; its last gradient leaves one backward before the end."""
    found = of("1f1b", 4, 8, forward=1, backward=2)
    assert dict(zip(KINDS, found.rows[1], strict=True)) == {"work": 24, "fill": 1, "wait": 6, "link": 0, "drain": 2}


@pytest.mark.parametrize("backward", [1, 2, 3.5])
@pytest.mark.parametrize(("name", "v"), [("naive", None), ("gpipe", None), ("1f1b", None), ("interleaved", 2)])
def test_where_its_formula_holds_the_idle_time_of_every_device_is_what_it_gives(name, v, backward):
    found = of(name, 4, 8, v, forward=1, backward=backward)
    assert not found.holds
    for row in found.rows:
        assert sum(row[1:]) == pytest.approx(found.expected)
    assert found.expected == pytest.approx(3 * (1 + backward) * (8 if name == "naive" else 1) / (v or 1))


def test_messages_that_take_time_are_more_than_the_formula_knows():
    found = of("1f1b", 4, 8, latency=0.5)
    assert all(sum(row[1:]) > found.expected for row in found.rows)
    assert of("interleaved", 4, 8, 2, latency=0.5).rows[0][KINDS.index("link")] == 5


@pytest.mark.parametrize(
    ("made", "work", "idle"),
    [
        (of("gpipe", 2, 2), "m (tF + tB)", "(p − 1)(tF + tB)"),
        (of("gpipe", 2, 2, recompute=True), "m (tF + tB + tR)", "(p − 1)(tF + tB)"),
        (of("interleaved", 2, 2, 2), "m (tF + tB)", "(p − 1)(tF + tB) / v"),
        (of("naive", 2, 2), "tF + tB of the whole batch", "(p − 1)(tF + tB) of the whole batch"),
    ],
)
def test_the_terms_of_the_formula(made, work, idle):
    assert (made.work, made.idle, made.holds) == (work, idle, "")


def test_a_recomputation_is_work_and_no_bubble():
    plain, again = of("gpipe", 4, 4, forward=1, backward=2), of("gpipe", 4, 4, forward=1, backward=2, recompute=True)
    assert again.expected == plain.expected
    assert again.rows[0][0] == plain.rows[0][0] + 4


def test_of_a_table_without_a_formula_it_says_whose_it_is():
    assert account(simulate(SPLIT)).holds == "GPipe and 1F1B"
    drawn = replace(build_schedule("interleaved", 2, 4, 2), name="yours")
    assert account(simulate(drawn)).holds == "interleaved 1F1B"


def test_where_a_stage_lives_twice_a_device_has_no_chunks():
    found = account(simulate(build_schedule("chimera", 4, 4)))
    assert (found.idle, found.expected, found.holds) == ("(p − 1)(tF + tB)", 6, "GPipe and 1F1B")


def test_forwards_alone_have_no_backward_in_their_formula():
    found = account(simulate(build_schedule("gpipe", 3, 4).forward_part()))
    assert (found.work, found.idle, found.expected) == ("m tF", "(p − 1) tF", 2)
    assert sum(found.rows[2][1:]) == 2


def test_updates_between_actions_are_waiting():
    assert account(simulate(UPDATES, Costs(update=0.5), check=False)).rows[0] == (4, 0, 0.5, 0, 0)


def test_in_the_long_run_only_a_flush_has_a_bubble():
    flushing = simulate(build_schedule("1f1b", 4, 4))
    assert long_run_bubble(flushing) == flushing.bubble_fraction
    endless = over(build_schedule("pipedream", 4, 4), 3)
    assert long_run_bubble(simulate(endless)) == 0
    assert long_run_bubble(simulate(endless, Costs(forward=1, backward=2, update=0.5))) < 0.02
    uneven = simulate(endless, Costs(forward=[1, 1, 1, 2], backward=[1, 1, 1, 2]))
    assert long_run_bubble(uneven) == pytest.approx(1 - 1.25 / 2, abs=0.05)
    short = simulate(build_schedule("pipedream", 4, 2))
    assert long_run_bubble(short) == short.bubble_fraction
