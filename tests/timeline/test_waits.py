from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab import Costs, build_schedule, simulate
from pipelab.schedules import Schedule
from pipelab.timeline import Span, Timeline
from pipelab.timeline.waits import Waits
from tests import oracle, tables
from tests.strategies import eighths, sound_tables


def waits(name, p, m, v=None, **costs):
    return Waits(simulate(build_schedule(name, p, m, v), Costs(**costs)))


def wait_of(found, token):
    """The wait of the span that runs this action."""
    [wait] = [w for w in found.all if token in map(str, oracle.parts(w.span.slot))]
    return wait


@st.composite
def timelines(draw):
    """Predictions with another cost on each stage, some with slow links; whole eighths, so that sums are exact."""
    schedule = draw(sound_tables())
    forward, backward = (draw(st.lists(eighths, min_size=schedule.stages, max_size=schedule.stages)) for _ in "FB")
    halves = {"input_gradient": forward, "weight_gradient": backward}
    costs = Costs(forward=forward, backward=backward, **halves, update=draw(st.sampled_from([0.0, 0.5])))
    return simulate(schedule, replace(costs, latency=draw(st.sampled_from([0.0, 0.0, 0.5, 3.0]))))


def needed(schedule, device, position):
    """(action, whether it comes as a message) for all that a slot takes from other slots, from the oracle's rules."""
    table = oracle.everything(schedule)
    here = oracle.parts(schedule.programs[device][position])
    found = set()
    for action in here:
        sender = oracle.message_need(action, schedule.stages, table)
        if sender in table:
            found.add((sender, table[sender][0] != device))
        found |= {(one, False) for ones in oracle.local_needs(action, table) for one in ones if one in table}
    return {(one, crosses) for one, crosses in found if one not in here}


# ---- when a span could have started ----------------------------------------------------------------------------------


@given(timelines())
def test_a_span_is_ready_when_the_last_thing_it_needs_is_there(timeline):
    table = oracle.everything(timeline.schedule)
    [latency] = {message.arrived - message.sent for message in timeline.messages} or {0.0}
    ends = {(span.device, span.position): span.end for span in (*timeline.spans, *timeline.updates)}
    for wait in Waits(timeline).all:
        takes = needed(timeline.schedule, wait.span.device, wait.span.position)
        there = [ends[table[action]] + (latency if crosses else 0.0) for action, crosses in takes]
        assert wait.ready == max(there, default=0.0)
        assert {supply.supplier for supply in wait.supplies} == {action for action, _ in takes}


@given(timelines())
def test_nothing_starts_before_it_is_ready_and_a_prediction_never_blames_the_machine(timeline):
    for wait in Waits(timeline).all:
        assert wait.span.start >= wait.ready
        assert wait.cause in {"start", "input", "device"}


@given(timelines())
def test_what_let_a_span_start_happened_just_then(timeline):
    for wait in Waits(timeline).all:
        before = timeline.span_at.get((wait.span.device, wait.span.position - 1))
        if wait.cause == "start":
            assert wait.span.start == timeline.start
        elif wait.cause == "input":
            assert wait.span.start == wait.ready > (0 if before is None else before.end)
        else:
            assert wait.span.start == before.end >= wait.ready


@given(timelines())
def test_whoever_takes_from_a_span_is_among_its_takers_and_nobody_else(timeline):
    found = Waits(timeline).all
    takes = {(source, k) for k, wait in enumerate(found) for source in (supply.source for supply in wait.supplies)}
    gives = [(k, taker) for k, wait in enumerate(found) for taker in wait.takers]
    assert len(gives) == len(set(gives))
    assert set(gives) == takes


@given(timelines())
def test_a_supply_names_the_span_that_made_it_and_how_it_came(timeline):
    found = Waits(timeline)
    for wait in found.all:
        for supply in wait.supplies:
            source = found.spans[supply.source]
            assert supply.supplier in oracle.parts(source.slot)
            assert (supply.kind == "local") == (source.device == wait.span.device)
            if supply.kind != "local":
                assert supply.kind == ("activation" if supply.supplier.op == "F" else "gradient")
            assert source.end <= supply.arrived <= wait.span.start


# ---- what happens at a time ------------------------------------------------------------------------------------------


@given(timelines())
def test_at_its_start_a_span_is_among_what_is_ready_and_runs(timeline):
    found = Waits(timeline)
    for wait in found.all[:12]:
        assert wait in found.ready_at(wait.span.start)
        assert wait in found.running_at(wait.span.start)
        assert wait not in found.running_at(wait.span.end)


@given(timelines(), st.data())
def test_at_any_time_one_span_a_device_runs_and_what_has_started_is_not_ready_any_more(timeline, data):
    found = Waits(timeline)
    time = data.draw(st.floats(0, timeline.end))
    running = found.running_at(time)
    assert len({wait.span.device for wait in running}) == len(running)
    assert {wait.span for wait in running} >= {s for s in timeline.spans if s.start < time < s.end - 1e-6}
    assert all(wait.span.start >= time - 1e-6 >= wait.ready - 2e-6 for wait in found.ready_at(time))


@given(timelines())
def test_moments_are_all_starts_and_ends_once_and_in_order(timeline):
    moments = Waits(timeline).moments
    assert list(moments) == sorted({time for span in timeline.spans for time in (span.start, span.end)})


def test_times_that_differ_by_rounding_alone_are_one_moment():
    first, second = waits("1f1b", 1, 1).spans
    timeline = waits("1f1b", 1, 1).timeline
    found = Waits(replace(timeline, spans=(first, replace(second, start=1 + 1e-12))))
    assert found.moments == (0, 1, 2)
    assert [wait.cause for wait in found.all] == ["start", "device"]


def test_what_is_ready_in_1f1b_while_device_0_waits_for_the_first_gradient():
    """p = 2, m = 3: at t = 2 device 1 may choose between 1F1 and 1B0; 0F2 could start, were it its turn."""
    found = waits("1f1b", 2, 3)
    assert {str(wait.span.slot) for wait in found.ready_at(2)} == {"1B0", "1F1", "0F2"}
    assert {str(wait.span.slot) for wait in found.running_at(2)} == {"1B0"}
    assert {str(wait.span.slot) for wait in found.running_at(3.5)} == {"1F1", "0B0"}


def test_with_nothing_on_it_a_timeline_has_no_moments():
    nothing = Waits(Timeline(build_schedule("1f1b", 2, 2), spans=()))
    assert (nothing.all, nothing.moments, nothing.ready_at(0), nothing.running_at(0)) == ((), (), (), ())


# ---- in words --------------------------------------------------------------------------------------------------------


@given(timelines())
def test_a_sentence_names_every_supplier_and_taker_with_its_device(timeline):
    found = Waits(timeline)
    for wait in found.all:
        said = found.sentence(wait)
        assert f"on device {wait.span.device}, t = " in said
        for supply in wait.supplies:
            source = found.spans[supply.source]
            here = source.device == wait.span.device
            assert (f"what {supply.supplier} kept here" if here else f"from device {source.device}") in said
        for taker in (found.spans[k] for k in wait.takers):
            assert "here" in said if taker.device == wait.span.device else f"on device {taker.device}" in said
        assert "machine" not in said


@pytest.mark.parametrize(
    ("token", "says"),
    [
        (
            "0F0",
            "0F0: forward of micro-batch 0, stage 0, on device 0, t = 0 to t = 1. Takes its part of the batch. "
            "Waiting for it: 0B0 here and 1F0 on device 1.",
        ),
        (
            "0B0",
            "0B0: backward of micro-batch 0, stage 0, on device 0, t = 3 to t = 4. Takes what 0F0 kept here and 1B0 "
            "from device 1 (there at t = 3). Started when 1B0 came. Nothing waits for it.",
        ),
        (
            "1F1",
            "1F1: forward of micro-batch 1, stage 1, on device 1, t = 3 to t = 4. Takes 0F1 from device 0 (there at "
            "t = 2). Started when 1B0 was over on its device; ready since t = 2. Waiting for it: 1B1 here.",
        ),
    ],
)
def test_what_is_said_of_a_span(token, says):
    found = waits("1f1b", 2, 2)
    assert found.sentence(wait_of(found, token)) == says


def test_with_a_slow_link_the_message_is_there_later_than_it_was_made():
    found = waits("1f1b", 2, 2, latency=0.5)
    wait = wait_of(found, "1F0")
    assert (wait.ready, wait.cause) == (1.5, "input")
    assert "Takes 0F0 from device 0 (there at t = 1.5). Started when 0F0 came." in found.sentence(wait)


def test_a_fused_slot_tells_both_of_its_parts():
    found = Waits(simulate(tables.read(tables.FUSED)))
    said = found.sentence(wait_of(found, "0F1"))
    assert "forward of micro-batch 1, stage 0 and backward of micro-batch 0, stage 0" in said


def test_a_backward_with_recomputation_takes_what_the_r_kept():
    found = Waits(simulate(build_schedule("gpipe", 2, 2, recompute=True)))
    assert "what 0R0 kept here" in found.sentence(wait_of(found, "0B0"))
    assert "Takes what 0F0 kept here." in found.sentence(wait_of(found, "0R0"))


# ---- what happened on a machine --------------------------------------------------------------------------------------


@pytest.fixture
def wall():
    """Spans of seconds, read from a clock that stood at 1000: device 1 lost its core before 1B0."""
    schedule = Schedule.from_csv("0F0,0B0\n1F0,1B0\n")
    f, b = (row[0] for row in schedule.programs), (row[1] for row in schedule.programs)
    (f0, f1), (b0, b1) = f, b
    spans = (
        Span(0, 0, f0, 1000.0, 1000.01),
        Span(0, 1, b0, 1000.08, 1000.09),
        Span(1, 0, f1, 1000.01, 1000.02),
        Span(1, 1, b1, 1000.05, 1000.08),
    )
    return Waits(Timeline(schedule, spans, clock="wall", unit="s"))


def test_a_machine_that_was_busy_elsewhere_is_blamed(wall):
    assert [wait.cause for wait in wall.all] == ["start", "input", "input", "machine"]
    said = wall.sentence(wait_of(wall, "1B0"))
    assert "It had all it needed earlier: the machine was busy elsewhere." in said
    assert wait_of(wall, "1B0") in wall.ready_at(1000.03)


def test_times_of_a_run_are_told_from_its_start_in_its_unit(wall):
    said = wall.sentence(wait_of(wall, "0B0"))
    assert "on device 0, 80 ms to 90 ms. " in said
    assert "1B0 from device 1 (there at 80 ms)" in said
    assert "1000" not in said


def test_on_a_drawing_board_no_machine_is_blamed_for_what_was_placed_late(wall):
    drawn = Waits(replace(wall.timeline, clock="drawn", unit="units"))
    assert "It had all it needed earlier: it was placed here." in drawn.sentence(wait_of(drawn, "1B0"))
    assert any("had all it needed for 1B0, but it was placed here" in gap.sentence for gap in drawn.timeline.gaps(1))


def test_what_never_ran_supplies_nothing():
    """A run that was cut short: 1B0 has no span, so 0B0, were it there, would have nothing from it."""
    whole = simulate(build_schedule("1f1b", 2, 1))
    cut = Waits(replace(whole, spans=tuple(span for span in whole.spans if str(span.slot) != "1B0")))
    assert [str(supply.supplier) for supply in wait_of(cut, "0B0").supplies] == ["0F0"]
    assert wait_of(cut, "1F0").takers == ()
