"""Figures that are reckoned on arrays are those of the spans, and spans appear when somebody looks."""

import copy
import pickle
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pipelab.schedules import build_schedule
from pipelab.simulation import Costs, simulate
from pipelab.timeline import Timeline
from tests.strategies import eighths, reordered, sound_tables

tables = st.one_of(sound_tables(), reordered().filter(lambda table: table.resolved is not None))
costs = st.builds(Costs, forward=st.one_of(st.just(0.0), eighths), backward=st.one_of(st.just(0.0), eighths))


def by_hand(timeline):
    """The same, put together from its objects."""
    names = ("schedule", "spans", "messages", "clock", "unit", "sequences", "updates", "holdings")
    return Timeline(**{name: getattr(timeline, name) for name in names})


@given(tables, costs, st.sampled_from([None, 24]))
def test_figures_of_arrays_are_figures_of_spans(schedule, given_costs, batch):
    timeline = simulate(schedule, replace(given_costs, activation_bytes=3.0, latency=0.5, update=1.0), batch=batch)
    figures, peaks = timeline.figures(), timeline.peak_bytes
    flight = [timeline.in_flight(r) for r in range(schedule.devices)]
    twin = by_hand(timeline)
    assert twin == timeline
    assert (twin.figures(), twin.peak_bytes) == (figures, peaks)
    assert [twin.in_flight(r) for r in range(schedule.devices)] == flight


def test_nothing_is_made_that_nobody_looked_at():
    schedule = build_schedule("1f1b", 4, 8)
    timeline = simulate(schedule, Costs(activation_bytes=1.0))
    assert (timeline.makespan, timeline.peak_microbatches, timeline.message_count) == (22.0, (4, 3, 2, 1), 48)
    assert timeline.peak_bytes == (4, 3, 2, 1)
    looked_at = {"spans", "messages", "updates", "holdings"}
    assert not looked_at & set(vars(timeline))
    assert "programs" not in vars(schedule)
    assert len(timeline.spans) == 64
    assert timeline.spans is timeline.spans


def test_a_prediction_is_copied_sent_and_changed_like_any_value():
    timeline = simulate(build_schedule("1f1b", 3, 4), Costs(latency=0.25))
    for twin in (pickle.loads(pickle.dumps(timeline)), copy.deepcopy(timeline), replace(timeline)):
        assert twin == timeline
        assert hash(twin) == hash(timeline)
    assert replace(timeline, spans=timeline.spans[:3]).makespan < timeline.makespan
