"""The parts of a bubble are what they are called, and together the bubble."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelab.schedules import build_schedule
from pipelab.schedules.updates import over, part
from pipelab.simulation import Costs, SlotCosts, simulate
from pipelab.tuning.monitor.causes import split_bubble

TABLES = [build_schedule("interleaved", 2, 4, 2), *(build_schedule(n, 4, 4) for n in ("1f1b", "gpipe", "zb-h1"))]
TABLES += [
    build_schedule("zb-v", 2, 3),
    over(build_schedule("pipedream", 3, 3), 2),
    part(build_schedule("2bw", 2, 4), 1),
]


def split(table, costs, **changed):
    timeline = simulate(table, costs, check=False)
    return timeline, split_bubble(timeline, changed.get("costs", costs))


@settings(max_examples=30)
@given(st.data())
def test_the_parts_are_the_bubble(data):
    table = data.draw(st.sampled_from(TABLES))
    times = st.floats(0.0, 10.0, allow_subnormal=False)
    slots = tuple(tuple(data.draw(st.lists(times, min_size=len(p), max_size=len(p)))) for p in table.programs)
    sizes = {(a, kind): data.draw(times) for *_, a in table.actions() for kind in ("activation", "gradient")}
    costs = SlotCosts(slots, sizes, data.draw(times), data.draw(st.sampled_from([1.0, 3.0, float("inf")])))
    timeline, causes = split(table, costs)
    assert causes.total == pytest.approx(timeline.bubble_fraction, abs=1e-9)
    assert causes.other == 0
    assert min(causes.fill, causes.messages) > -1e-9


@pytest.mark.parametrize("name", ["gpipe", "1f1b", "naive", "interleaved", "chimera"])
def test_an_even_pipeline_only_fills_and_drains(name):
    timeline, causes = split(build_schedule(name, 4, 8), Costs(forward=1, backward=2))
    assert causes.fill == pytest.approx(timeline.bubble_fraction)
    assert (causes.imbalance, causes.updates, causes.messages, causes.other) == pytest.approx((0, 0, 0, 0), abs=1e-12)


def test_a_heavy_stage_is_imbalance_and_a_slow_link_messages():
    table = build_schedule("1f1b", 4, 8)
    even = split(table, Costs(forward=2, backward=4))[1]
    heavy = split(table, Costs(forward=[1, 1, 5, 1], backward=[2, 2, 10, 2]))[1]
    assert heavy.imbalance > 0.2 and heavy.messages == 0
    slow = split(table, Costs(forward=2, backward=4, latency=1))[1]
    assert slow.messages > 0.05 and slow.imbalance == pytest.approx(0)
    idle = simulate(table, Costs(forward=2, backward=4)).makespan / simulate(table, Costs(2, 4, latency=1)).makespan
    assert slow.fill == pytest.approx(even.fill * idle)


def test_updates_on_the_way_are_a_cause_of_their_own():
    table = over(build_schedule("pipedream", 3, 3), 3)
    timeline, causes = split(table, Costs(update=0.5))
    assert causes.updates > 0.01
    assert causes.total == pytest.approx(timeline.bubble_fraction)


def test_what_the_wall_clock_shows_beyond_that_is_other_work():
    """Every slot begins 3 s late on a machine that is busy elsewhere: nothing else has changed."""
    table, costs = build_schedule("1f1b", 2, 4), SlotCosts(((1.0,) * 8,) * 2)
    timeline = simulate(table, costs, clock="wall")
    late = replace(timeline, spans=tuple(replace(s, start=s.start * 2, end=s.start * 2 + 1) for s in timeline.spans))
    causes = split_bubble(late, costs)
    assert causes.total == pytest.approx(late.bubble_fraction)
    assert causes.other == pytest.approx(late.bubble_fraction - causes.fill) and causes.other > 0.2
    assert split_bubble(timeline, costs).other == 0
