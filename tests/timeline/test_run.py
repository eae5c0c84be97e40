"""Figures that are reckoned on arrays are those of the spans, and spans appear when somebody looks."""

import copy
import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab.schedules import Schedule, build_schedule
from pipelab.schedules.updates import part, part_in, steps_in_flight
from pipelab.simulation import Costs, peak_activation_bytes, simulate
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


# ---- parts of an endless table ---------------------------------------------------------------------------------------


def inside(schedule, before, costs, *, drain=False):
    """(a part, the timeline of the whole table, the part's spans in it, device by device)."""
    one = part(schedule, before, drain=drain)
    here = part_in(one)
    whole = simulate(here.whole, costs)
    rows = []
    for r in range(schedule.devices):
        row = sorted((*whole.on_device(r), *(u for u in whole.updates if u.device == r)), key=lambda s: s.position)
        rows.append(row[here.begin[r] : here.end[r]])
    return one, whole, rows


def level(steps, span, column=1):
    """What is held while a span runs."""
    return [step[column] for step in steps if step[0] <= span.start][-1]


PARTS = [("pipedream", 4, 4), ("pipedream", 4, 1), ("pipedream", 4, 2), ("vertical-sync", 3, 5), ("2bw", 3, 4)]


@pytest.mark.parametrize(("name", "p", "m"), PARTS)
@pytest.mark.parametrize("recompute", [False, True])
def test_in_a_part_of_an_endless_table_devices_hold_what_they_hold_in_the_whole(name, p, m, recompute):
    schedule = build_schedule(name, p, m, recompute=recompute)
    costs = Costs(activation_bytes=8.0, input_bytes=1.0)
    for before, drain in [*((k, False) for k in range(steps_in_flight(schedule) + 1)), (1, True)]:
        one, whole, rows = inside(schedule, before, costs, drain=drain)
        timeline = simulate(one, costs, check=False)
        for r, row in enumerate(rows):
            for span, same in zip(timeline.on_device(r), (s for s in row if s.slot.op != "U"), strict=True):
                assert span.slot == same.slot
                assert level(timeline.in_flight(r), span) == level(whole.in_flight(r), same), (r, span)
                assert level(timeline.holdings[r].steps, span) == level(whole.holdings[r].steps, same), (r, span)


def test_what_came_in_earlier_is_in_flight_from_the_start_and_what_stays_to_the_end():
    schedule = build_schedule("pipedream", 4, 4)
    timeline = simulate(part(schedule, 1), check=False)
    assert timeline.peak_microbatches == (4, 3, 2, 1)
    assert [timeline.in_flight(r)[0][:1] for r in range(4)] == [(0,), (0,), (0,), (3,)]
    assert [timeline.in_flight(r)[-1][1] for r in range(4)] == [3, 2, 1, 0]
    drained = simulate(part(schedule, 2, drain=True), check=False)
    assert drained.peak_microbatches == (3, 2, 1, 0)
    assert [drained.in_flight(r)[-1][1:2] for r in range(3)] == [(0,), (0,), (0,)]


def test_a_microbatch_that_only_passes_through_a_short_step_counts_too():
    """With m = 1 device 0 runs one forward and the backward of the micro-batch of three steps before."""
    timeline = simulate(part(build_schedule("pipedream", 4, 1), 3), check=False)
    assert timeline.peak_microbatches == (4, 3, 2, 1)


def test_idle_time_at_the_edges_of_a_part_belongs_to_other_steps():
    schedule = build_schedule("pipedream", 4, 4)
    [first, *_] = simulate(part(schedule, 1), check=False).gaps(1)
    assert first.cause == "fill"
    assert first.sentence.endswith("what it runs before belongs to the step before")
    last = simulate(part(schedule, 1), check=False).gaps(0)[-1]
    assert last.cause == "drain"
    assert last.sentence.startswith("what device 0 runs next belongs to the next step; device 3 runs on until")
    [first, *_] = simulate(part(schedule, 0), check=False).gaps(1)
    assert first.sentence.endswith("the pipeline is still filling")
    drained = simulate(part(schedule, 1, drain=True), check=False).gaps(3)
    assert "device 3 has nothing to run" in drained[-1].sentence


def test_from_i_on_only_what_w_needs_is_kept():
    schedule = Schedule.from_csv("0F0,0F1,0I0,0I1,0W0,0W1\n", name="late w")
    costs = Costs(activation_bytes=10.0, waiting_bytes=4.0, message_bytes=0.0)
    (held,) = simulate(schedule, costs).holdings
    ends = dict(held.steps)  # the last entry of each time
    assert [ends[t] for t in sorted(ends)] == [10, 20, 14, 8, 4, 0]
    assert simulate(schedule, costs).peak_bytes == (20.0,) == peak_activation_bytes(schedule, costs)
    assert simulate(schedule, replace(costs, waiting_bytes=None)).peak_bytes == (20.0,)
    late = replace(costs, waiting_bytes=13.0)  # gradients that wait can weigh more than what I let go of
    assert simulate(schedule, late).peak_bytes == (26.0,)
