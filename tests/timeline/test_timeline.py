import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab import Costs, simulate
from pipelab.schedules import Action, Schedule, actions_of, build_schedule, format_slot
from pipelab.timeline import CLOCKS, Span, Timeline
from tests import tables
from tests.strategies import eighths, sound_tables


def run(name, p=4, m=4, v=None, costs=None, **more):
    return simulate(build_schedule(name, devices=p, microbatches=m, chunks=v), costs or Costs(), **more)


@st.composite
def timelines(draw, latency=True):
    """Predictions with a different cost on each stage; all times are whole eighths, so that sums are exact."""
    schedule = draw(sound_tables().filter(lambda s: "U" not in s.ops))
    forward, backward = (draw(st.lists(eighths, min_size=schedule.stages, max_size=schedule.stages)) for _ in "FB")
    costs = Costs(forward=forward, backward=backward, input_gradient=forward, weight_gradient=backward)
    if latency:
        costs = replace(costs, latency=draw(st.sampled_from([0.0, 0.5, 3.0])), message_bytes=draw(eighths), bandwidth=2)
    return simulate(schedule, costs)


# ---- figures ---------------------------------------------------------------------------------------------------------


@given(timelines())
def test_busy_and_idle_time_add_up(timeline):
    p = timeline.schedule.devices
    total = p * timeline.makespan
    assert sum(timeline.busy) == sum(span.duration for span in timeline.spans)
    assert timeline.bubble_fraction == pytest.approx((total - sum(timeline.busy)) / total)
    assert timeline.utilisation == pytest.approx(1 - timeline.bubble_fraction)
    assert timeline.bubble_ratio == pytest.approx(timeline.bubble_fraction / timeline.utilisation)
    assert 0 <= timeline.bubble_fraction < 1


def test_bubble_fraction_is_of_all_time_and_bubble_ratio_of_ideal_time():
    """p = 4, m = 16: papers print 15.8 % and 18.8 %, of the same idle time."""
    timeline = run("gpipe", m=16)
    assert timeline.bubble_fraction == pytest.approx(3 / 19)
    assert timeline.bubble_ratio == pytest.approx(3 / 16)


def test_makespan_is_from_the_first_start_to_the_last_end():
    timeline = run("1f1b", p=2, m=2)
    late = replace(timeline, spans=tuple(replace(s, start=s.start + 100, end=s.end + 100) for s in timeline.spans))
    assert (late.start, late.end, late.makespan) == (100, 106, 6)
    assert late.bubble_fraction == timeline.bubble_fraction


def test_an_empty_timeline_has_no_bubble_and_no_gaps():
    nothing = Timeline(build_schedule("1f1b", devices=2, microbatches=2), spans=())
    assert (nothing.makespan, nothing.bubble_fraction, nothing.bubble_ratio) == (0, 0, 0)
    assert nothing.gaps() == ()
    assert nothing.critical_path() == ()


def test_figures_are_plain_data_for_json():
    figures = json.loads(json.dumps(run("1f1b", batch=64).figures()))
    assert figures["makespan"] == 14
    assert figures["bubble_fraction"] == pytest.approx(3 / 7)
    assert figures["peak_microbatches"] == [4, 3, 2, 1]
    assert figures["peak_sequences"] == [64, 48, 32, 16]
    assert figures["busy"] == [8, 8, 8, 8]
    assert figures["messages"] == 24
    assert (figures["clock"], figures["unit"]) == ("predicted", "units")


@pytest.mark.parametrize("clock", ["unit", "device", "wall", "predicted"])
def test_every_clock_has_a_name_that_says_what_it_means(clock):
    assert run("gpipe", p=2, m=2, clock=clock).clock_name == CLOCKS[clock]


def test_a_note_is_told_with_the_clock():
    noted = replace(run("gpipe", p=2, m=2), note="median of 5 steps")
    assert noted.clock_name.endswith(", median of 5 steps")


# ---- in flight -------------------------------------------------------------------------------------------------------


def test_what_is_in_flight_rises_with_each_forward_and_falls_with_each_backward():
    """1F1B, p = 2, m = 3, device 0: F0 F1 . B0 F2 . B1 ... at no time more than two."""
    steps = run("1f1b", p=2, m=3).in_flight(0)
    assert [(t, shares) for t, shares, _ in steps] == [(0, 1), (1, 2), (4, 1), (4, 2), (6, 1), (8, 0)]


@given(timelines())
def test_in_flight_starts_above_nothing_ends_at_nothing_and_is_never_less(timeline):
    for device in range(timeline.schedule.devices):
        steps = timeline.in_flight(device)
        assert [t for t, *_ in steps] == sorted(t for t, *_ in steps)
        assert all(shares >= 0 and sequences >= 0 for _, shares, sequences in steps)
        assert steps[-1][1:] == (0, 0)
        assert timeline.peak_microbatches[device] == max(shares for _, shares, _ in steps)


def test_what_never_has_a_backward_stays_in_flight():
    """A table with a backward left out, as it is broken on purpose: micro-batch 0 is never let go."""
    steps = simulate(Schedule.from_csv("0F0,0F1,0B1\n"), check=False).in_flight(0)
    assert [(t, shares) for t, shares, _ in steps] == [(0, 1), (1, 2), (3, 1)]


def test_where_nothing_goes_back_a_microbatch_is_held_for_as_long_as_its_forward_runs():
    timeline = simulate(tables.read(tables.FORWARD_ONLY))
    assert [(t, shares) for t, shares, _ in timeline.in_flight(0)] == [(0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0)]
    assert timeline.peak_microbatches == (1, 1)


def test_what_costs_nothing_is_never_less_than_nothing_in_flight():
    timeline = simulate(tables.read(tables.FORWARD_ONLY), Costs(forward=0))
    assert all(shares >= 0 for _, shares, _ in timeline.in_flight(0))


def test_a_split_backward_keeps_a_microbatch_until_its_weight_gradient():
    steps = simulate(tables.read("0F0,0I0,0F1,0W0,0I1,0W1\n")).in_flight(0)
    assert max(shares for _, shares, _ in steps) == 2


def test_with_two_chunks_each_counts_half_a_share():
    shares = [shares for _, shares, _ in run("interleaved", v=2).in_flight(3)]
    assert shares[:3] == [0.5, 1.0, 1.5]
    assert max(shares) == 2.5


def test_three_chunks_of_a_third_make_a_whole():
    assert run("interleaved", p=2, m=4, v=3).in_flight(1)[-1][1] == 0
    assert run("interleaved", p=1, m=4, v=3).peak_microbatches == (1,)


def test_at_a_fixed_batch_gpipe_holds_the_whole_batch_whatever_m_and_1f1b_its_part():
    for m in (4, 8, 16, 32):
        assert run("gpipe", m=m, batch=64).peak_sequences == (64,) * 4
        assert run("1f1b", m=m, batch=64).peak_sequences == tuple(64 * (4 - r) / m for r in range(4))


def test_at_a_fixed_microbatch_size_gpipe_grows_with_m_and_1f1b_does_not():
    for m in (4, 8, 16):
        assert run("gpipe", m=m, batch=16 * m).peak_sequences == (16 * m,) * 4
        assert run("1f1b", m=m, batch=16 * m).peak_sequences == (64, 48, 32, 16)


def test_naive_holds_the_whole_batch():
    assert run("naive", m=8, batch=64).peak_sequences == (64,) * 4


def test_without_a_batch_sequences_are_counted_in_microbatches():
    assert run("1f1b").peak_sequences == run("1f1b").peak_microbatches


# ---- critical path ---------------------------------------------------------------------------------------------------


@given(timelines(latency=False))
def test_the_critical_path_is_unbroken_from_the_first_start_to_the_last_end(timeline):
    path = timeline.critical_path()
    assert path[0].start == timeline.start
    assert path[-1].end == timeline.end
    assert all(before.end == after.start for before, after in pairwise(path))
    assert sum(span.duration for span in path) == timeline.makespan


@given(timelines())
def test_with_slow_links_the_critical_path_still_leads_from_start_to_end(timeline):
    path = timeline.critical_path()
    assert path[0].start == timeline.start
    assert path[-1].end == timeline.end
    assert all(before.end <= after.start for before, after in pairwise(path))


def test_the_critical_path_of_gpipe_goes_down_along_the_last_device_and_up():
    path = run("gpipe", p=3, m=2, costs=Costs(forward=[1, 1, 2], backward=[1, 1, 2])).critical_path()
    assert [str(span.slot) for span in path] == ["0F0", "1F0", "2F0", "2F1", "2B0", "2B1", "1B1", "0B1"]


def test_the_critical_path_goes_through_the_slowest_stage():
    path = run("1f1b", p=3, m=8, costs=Costs(forward=[1, 5, 1], backward=[1, 5, 1])).critical_path()
    assert Counter(span.device for span in path)[1] == 16


@pytest.mark.parametrize("update", [0.0, 2.0])
def test_the_critical_path_does_not_break_off_at_an_update(update):
    """PipeDream's updates stand between the micro-batches: the path used to begin behind the last of them."""
    timeline = simulate(Schedule.from_csv("0F0,0B0,0U0,0F1,0B1,0U1\n"), Costs(update=update))
    path = timeline.critical_path()
    assert path[0].start == 0
    assert [str(span.slot) for span in path if "U" not in str(span.slot)] == ["0F0", "0B0", "0F1", "0B1"]


# ---- gaps ------------------------------------------------------------------------------------------------------------


@given(timelines())
def test_gaps_and_spans_tile_the_time_of_every_device(timeline):
    for device in range(timeline.schedule.devices):
        pieces = sorted((piece.start, piece.end) for piece in (*timeline.on_device(device), *timeline.gaps(device)))
        assert pieces[0][0] == timeline.start
        assert pieces[-1][1] == timeline.end
        assert all(before[1] == after[0] for before, after in pairwise(pieces))


@given(timelines())
def test_every_gap_says_why_in_a_sentence(timeline):
    for gap in timeline.gaps():
        assert gap.cause in {"fill", "wait", "link", "drain"}
        assert f"device {gap.device}" in gap.sentence
        assert "busy elsewhere" not in gap.sentence  # no prediction has a gap without a reason
        if gap.cause != "drain":
            assert str(gap.blocker) in gap.sentence
            assert f"device {gap.blocker_device}" in gap.sentence


def test_all_gaps_together_are_the_bubble():
    timeline = run("1f1b")
    idle = sum(gap.end - gap.start for gap in timeline.gaps())
    assert idle == pytest.approx(timeline.bubble_fraction * 4 * timeline.makespan)


def test_a_pipeline_that_fills_says_so():
    gap = run("1f1b").gaps(2)[0]
    assert (gap.cause, gap.start, gap.end, str(gap.blocker), gap.blocker_device) == ("fill", 0, 2, "1F0", 1)
    assert gap.sentence == "device 2 waits for 1F0 from device 1: the pipeline is still filling"


def test_a_device_that_waits_for_a_gradient_says_from_whom():
    gap = run("1f1b").gaps(0)[0]
    assert (gap.cause, gap.start, gap.end, str(gap.blocker), gap.blocker_device) == ("wait", 4, 7, "1B0", 1)
    assert gap.sentence == "device 0 waits for 1B0 from device 1, which has to wait first, for 2B0 from device 2"


def test_a_device_that_waits_for_one_that_is_busy_with_other_work_says_with_what():
    schedule = tables.read("0F0,0F1,0B0,0B1\n1F0,1F1,1B0,1B1\n")
    gap = simulate(schedule, Costs(forward=[1, 4], backward=[1, 1])).gaps(0)[0]
    assert gap.sentence == "device 0 waits for 1B0 from device 1, which still runs forwards (1F0)"
    schedule = tables.read("0F0,0F1,0B1,0B0\n1F0,1B0,1F1,1B1\n")
    gap = simulate(schedule, Costs(forward=[2, 0.5], backward=[1, 4])).gaps(0)[0]
    assert gap.sentence == "device 0 waits for 1B1 from device 1, which runs 1B0 first"


def test_a_device_that_waits_for_a_slow_one_says_that_it_is_running():
    gap = simulate(tables.read("0F0,0B0\n1F0,1B0\n"), Costs(forward=[2, 0], backward=[1, 5])).gaps(0)[0]
    assert gap.sentence == "device 0 waits for 1B0 from device 1, which is running it"


def test_a_slow_link_is_blamed_where_the_sender_was_done_in_time():
    """0F1 is made at t = 2, but the link brings it at t = 5; device 1 is free from t = 4."""
    timeline = run("gpipe", p=2, m=3, costs=Costs(message_bytes=2, bandwidth=1))
    gap = timeline.gaps(1)[1]
    assert (gap.cause, gap.start, gap.end, str(gap.blocker)) == ("link", 4, 5, "0F1")
    assert "it is on its way, the link takes until t = 5" in gap.sentence


def test_a_sender_that_was_kept_from_sending_is_not_the_links_doing():
    """On a busy machine a process may lose its core between computing and sending: 0F1 is made at 2, sent at 4.5."""
    timeline = run("gpipe", p=2, m=3, costs=Costs(message_bytes=2, bandwidth=1))
    late = [replace(m, sent=4.5) if str(m.producer) == "0F1" else m for m in timeline.messages]
    gap = replace(timeline, messages=tuple(late)).gaps(1)[1]
    assert (gap.cause, gap.start, gap.end, str(gap.blocker)) == ("wait", 4, 5, "0F1")
    assert "computed, but sent only at t = 4.5; that machine was busy elsewhere" in gap.sentence


def test_a_message_sent_just_when_the_receiver_became_free_is_the_links_doing_too():
    gap = run("gpipe", p=2, m=2, costs=Costs(forward=[2, 1], latency=1)).gaps(1)[1]
    assert (gap.cause, gap.start, gap.end, str(gap.blocker)) == ("link", 4, 5, "0F1")


def test_only_the_first_forward_of_a_device_waits_for_the_pipeline_to_fill():
    first, second = run("gpipe", p=2, m=2, costs=Costs(forward=[2, 1])).gaps(1)[:2]
    assert (first.cause, str(first.blocker)) == ("fill", "0F0")
    assert (second.cause, str(second.blocker), second.start, second.end) == ("wait", "0F1", 3, 4)
    assert second.sentence == "device 1 waits for 0F1 from device 0, which is running it"


def test_a_device_that_is_done_says_who_is_not():
    gap = run("1f1b").gaps(3)[-1]
    assert (gap.cause, gap.start, gap.end, gap.blocker, gap.blocker_device) == ("drain", 11, 14, None, 0)
    assert gap.sentence == "device 3 has finished its part; device 0 runs on until 0B3"


def test_a_device_that_is_done_and_updates_its_weights_while_others_go_on_says_so():
    """An early update (post_validation) runs in the drain; one at the flush does not."""
    timeline = run("1f1b")
    early = Span(3, 8, Action(3, "U", 3), 11.0, 13.0)
    flush = Span(2, 8, Action(2, "U", 3), 14.0, 15.0)
    said = [replace(timeline, updates=(early, flush)).gaps(r)[-1].sentence for r in (2, 3)]
    assert said == [
        "device 2 has finished its part; device 0 runs on until 0B3",
        "device 3 has finished its part and updates its weights, 3U3, beside the makespan; device 0 runs on until 0B3",
    ]


def test_a_device_with_nothing_to_do_is_told_apart_from_one_that_is_done():
    idle = replace(tables.read("0F0,0B0\n"), programs=(tables.read("0F0,0B0\n").programs[0], ()))
    [gap] = simulate(idle).gaps(1)
    assert "device 1 has nothing to run" in gap.sentence


def test_on_a_real_machine_a_gap_may_have_no_reason_in_the_table():
    late = run("1f1b", p=1, m=1)
    first, second = late.spans
    late = replace(late, clock="wall", spans=(first, replace(second, start=3.0, end=4.0)))
    [gap] = late.gaps()
    assert (gap.cause, gap.start, gap.end) == ("wait", 1, 3)
    assert "had all it needed for 0B0, but the machine was busy elsewhere" in gap.sentence


def test_a_device_that_updates_its_weights_does_not_wait_for_the_machine():
    """Between two micro-batches of PipeDream stands an update: what the device was about is known."""
    timeline = simulate(Schedule.from_csv("0F0,0B0,0U0,0F1,0B1,0U1\n"), Costs(update=2))
    assert all("0U0" in gap.sentence for gap in timeline.gaps())


def test_a_device_that_waits_for_one_that_updates_its_weights_says_so():
    """Device 1 is not idle from t = 5 to 8, which is why 1F1, and behind it 1B1, come late."""
    schedule = Schedule.from_csv("0F0,0B0,0F1,0B1\n1F0,1B0,1U0,1F1,1B1,1U1\n")
    gap = simulate(schedule, Costs(update=5), check=False).gaps(0)[1]
    assert (gap.start, gap.end, str(gap.blocker)) == (5, 10, "1B1")
    assert "1U0" in gap.sentence
    assert "idle" not in gap.sentence


def test_gaps_shorter_than_the_tolerance_are_not_told():
    timeline = run("1f1b")
    assert timeline.gaps(0, tolerance=3) == ()
    assert {gap.end - gap.start for gap in timeline.gaps(0)} == {1, 3}


# ---- Chrome trace ----------------------------------------------------------------------------------------------------


def events(timeline, phase):
    return [event for event in json.loads(timeline.to_chrome_trace())["traceEvents"] if event["ph"] == phase]


def slots(timeline):
    return [event for event in events(timeline, "X") if event["tid"] == 0]


def test_the_trace_has_one_process_per_device_named_with_its_stages():
    named = {e["pid"]: e["args"]["name"] for e in events(run("interleaved", v=2), "M") if e["name"] == "process_name"}
    assert named == {r: f"device {r} (stages {r}, {r + 4})" for r in range(4)}


def test_the_trace_draws_a_unit_as_a_millisecond():
    drawn = slots(run("1f1b", p=2, m=1))
    assert [(e["name"], e["pid"], e["ts"], e["dur"]) for e in drawn] == [
        ("0F0", 0, 0, 1000),
        ("0B0", 0, 3000, 1000),
        ("1F0", 1, 1000, 1000),
        ("1B0", 1, 2000, 1000),
    ]
    assert {e["cat"] for e in drawn} == {"F", "B"}


def test_the_trace_of_a_measured_run_starts_at_zero_and_is_true_to_scale():
    timeline = run("1f1b", p=2, m=1, costs=Costs(unit="s"))
    shifted = tuple(replace(s, start=s.start + 50, end=s.end + 50) for s in timeline.spans)
    measured = replace(timeline, spans=shifted, messages=(), clock="wall")
    drawn = slots(measured)
    assert [(e["ts"], e["dur"]) for e in drawn] == [(0, 1e6), (3e6, 1e6), (1e6, 1e6), (2e6, 1e6)]
    assert json.loads(measured.to_chrome_trace())["otherData"]["clock"] == CLOCKS["wall"]


@given(timelines())
def test_every_span_is_in_the_trace_with_its_times(timeline):
    drawn = Counter((e["pid"], e["ts"], e["dur"]) for e in slots(timeline))
    assert drawn == Counter((s.device, s.start * 1e3, s.duration * 1e3) for s in timeline.spans)


@given(timelines())
def test_every_message_is_an_arrow_from_the_span_that_made_it_to_the_span_that_used_it(timeline):
    drawn = slots(timeline)

    def enclosing(event):
        return [e["name"] for e in drawn if e["pid"] == event["pid"] and e["ts"] < event["ts"] < e["ts"] + e["dur"]]

    leaves = {e["id"]: e for e in events(timeline, "s")}
    lands = {e["id"]: e for e in events(timeline, "f")}
    assert len(leaves) == len(lands) == timeline.message_count
    assert leaves.keys() == lands.keys()
    arrows = Counter()
    for number, leaving in leaves.items():
        landing = lands[number]
        assert (leaving["cat"], leaving["name"]) == (landing["cat"], landing["name"])
        assert leaving["ts"] < landing["ts"]
        [made], [used] = enclosing(leaving), enclosing(landing)
        arrows[leaving["cat"], leaving["pid"], landing["pid"], made, used] += 1
    slot_of = {action: format_slot(span.slot) for span in timeline.spans for action in actions_of(span.slot)}
    assert arrows == Counter(
        (m.kind, m.source, m.destination, slot_of[m.producer], slot_of[m.consumer]) for m in timeline.messages
    )


def test_an_arrow_joins_the_producer_to_the_consumer():
    timeline = run("1f1b", p=2, m=1)
    first = min(events(timeline, "s"), key=lambda event: event["ts"])
    assert (first["pid"], first["cat"]) == (0, "activation")
    [landing] = [e for e in events(timeline, "f") if e["id"] == first["id"]]
    assert (landing["pid"], round(landing["ts"])) == (1, 1000)


def test_updates_are_in_the_trace_too():
    timeline = simulate(Schedule.from_csv("0F0,0B0,0U0\n"), Costs(update=2))
    assert [(e["name"], e["ts"], e["dur"]) for e in events(timeline, "X")][-1] == ("0U0", 2000, 2000)


def test_activation_bytes_are_a_counter_per_device():
    counters = events(run("1f1b", p=2, m=2, costs=Costs(activation_bytes=10)), "C")
    assert {e["pid"] for e in counters} == {0, 1}
    assert max(e["args"]["bytes"] for e in counters if e["pid"] == 0) == 20


# ---- small values ----------------------------------------------------------------------------------------------------


def test_a_span_knows_how_long_it_ran():
    assert Span(0, 0, tables.read("0F0\n").programs[0][0], 1.5, 4.0).duration == 2.5


@pytest.mark.parametrize("sign", [1, -1])
def test_spans_of_a_device_come_in_the_order_in_which_they_ran(sign):
    timeline = run("1f1b")
    mixed = replace(timeline, spans=tuple(timeline.spans[::sign]))
    assert [s.position for s in mixed.on_device(2)] == list(range(8))
