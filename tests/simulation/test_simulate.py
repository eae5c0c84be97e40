from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab import ConfigurationError, Costs, ScheduleError, simulate
from pipelab.schedules import Action, Schedule, build_schedule, check_schedule
from pipelab.simulation import peak_activation_bytes, sweep
from tests import oracle, tables
from tests.strategies import damaged, eighths, reordered, sound_tables


def ends(timeline):
    spans = [*timeline.spans, *timeline.updates]
    return {(span.device, span.position): span.end for span in spans}


class Counting:
    """Costs of 1 that remember how often they were asked."""

    unit, latency, bandwidth = "units", 0.0, float("inf")

    def __init__(self):
        self.slots = self.messages = 0

    def slot_cost(self, schedule, device, position):
        self.slots += 1
        return 1.0

    def message_size(self, schedule, producer, kind):
        self.messages += 1
        return 0.0


# ---- the worked example ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "chunks", "makespan"), [("naive", 1, 32), ("gpipe", 1, 14), ("1f1b", 1, 14), ("interleaved", 2, 11)]
)
def test_p4_m4_at_equal_costs_takes_as_long_as_the_textbook_says(name, chunks, makespan):
    schedule = build_schedule(name, devices=4, microbatches=4, chunks=chunks)
    assert simulate(schedule, Costs(forward=1, backward=1)).makespan == makespan
    assert simulate(schedule).makespan == makespan


def test_a_backward_twice_as_long_stretches_the_backward_part():
    schedule = build_schedule("gpipe", devices=4, microbatches=4)
    assert simulate(schedule, Costs(forward=1, backward=2)).makespan == (4 + 3) * (1 + 2)


def test_a_prediction_says_that_it_is_one():
    timeline = simulate(build_schedule("1f1b", devices=2, microbatches=2), Costs(unit="ms"))
    assert (timeline.clock, timeline.unit) == ("predicted", "ms")
    assert simulate(build_schedule("1f1b", devices=2, microbatches=2), clock="unit").clock == "unit"


# ---- against a second opinion ----------------------------------------------------------------------------------------


@given(sound_tables(), st.data())
def test_every_slot_ends_at_its_longest_path_whatever_each_stage_costs(schedule, data):
    stages = schedule.stages
    cost = {op: data.draw(st.lists(eighths, min_size=stages, max_size=stages), label=op) for op in "FBIWR"}
    costs = Costs(
        forward=cost["F"], backward=cost["B"], input_gradient=cost["I"], weight_gradient=cost["W"], recompute=cost["R"]
    )

    def slot_cost(slot):
        return sum(
            0 if a.op == "U" else cost[a.op][a.stage] * schedule.weights[a.microbatch] for a in oracle.parts(slot)
        )

    assert ends(simulate(schedule, costs)) == oracle.ends_of(schedule, slot_cost)


@given(sound_tables(), st.data())
def test_messages_take_latency_and_bandwidth_and_keep_their_order_on_the_wire(schedule, data):
    forward, backward = (data.draw(st.lists(eighths, min_size=schedule.stages, max_size=schedule.stages)) for _ in "FB")
    latency, size = data.draw(eighths, label="latency"), data.draw(eighths, label="bytes")
    given_ = {"forward": forward, "backward": backward, "input_gradient": forward, "weight_gradient": backward}
    cost = {"F": forward, "B": backward, "I": forward, "W": backward, "R": forward, "U": [0.0] * schedule.stages}

    timeline = simulate(schedule, Costs(**given_, latency=latency, bandwidth=2.0, message_bytes=size))

    assert ends(timeline) == oracle.ends_of(
        schedule,
        lambda slot: sum(
            cost[a.op][a.stage] * (1 if a.op == "U" else schedule.weights[a.microbatch]) for a in oracle.parts(slot)
        ),
        latency=latency,
        sending_time=lambda producer: size * schedule.weights[producer.microbatch] / 2.0,
    )


@given(reordered())
def test_a_reordered_table_runs_to_the_end_exactly_when_the_checker_finds_nothing(schedule):
    if check_schedule(schedule) == []:
        assert len(ends(simulate(schedule, check=False))) == sum(map(len, schedule.programs))
    else:
        with pytest.raises(ScheduleError, match="stuck"):
            simulate(schedule, check=False)


@given(reordered() | damaged())
def test_a_table_that_the_checker_refuses_is_refused_with_the_same_violations(schedule):
    violations = check_schedule(schedule)
    if not violations:
        simulate(schedule)
        return
    with pytest.raises(ScheduleError, match=f"schedule '{schedule.name.split()[0]}") as caught:
        simulate(schedule)
    assert caught.value.violations == tuple(violations)


def test_stuck_without_a_check_it_names_the_first_slot_that_waits():
    with pytest.raises(ScheduleError, match="6 actions wait forever, the first is 0B0 on device 0"):
        simulate(tables.read("0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n"), check=False)


@pytest.mark.parametrize("name", ["gpipe", "1f1b", "interleaved"])
def test_the_work_grows_with_the_number_of_actions(name):
    """Twice the micro-batches ask for twice the costs: each slot and each message once."""
    asked = []
    for m in (64, 128):
        counting = Counting()
        simulate(build_schedule(name, devices=4, microbatches=m), counting)
        asked.append((counting.slots, counting.messages))
    (slots, messages), twice = asked
    assert twice == (2 * slots, 2 * messages)
    assert slots == 4 * 2 * 64 * (2 if name == "interleaved" else 1)


# ---- messages --------------------------------------------------------------------------------------------------------


def test_latency_delays_each_of_the_first_messages():
    schedule = build_schedule("gpipe", devices=2, microbatches=1)
    timeline = simulate(schedule, Costs(latency=0.5))
    assert [(span.start, span.end) for span in timeline.spans] == [(0, 1), (4, 5), (1.5, 2.5), (2.5, 3.5)]


def test_a_narrow_link_sends_one_message_after_the_other():
    """0F1 is ready at t = 2, but the link is busy with 0F0 until t = 3."""
    schedule = build_schedule("gpipe", devices=2, microbatches=2)
    timeline = simulate(schedule, Costs(message_bytes=4, bandwidth=2))
    times = {str(m.producer): (m.sent, m.arrived) for m in timeline.messages if m.kind == "activation"}
    assert times == {"0F0": (1, 3), "0F1": (2, 5)}
    assert timeline.message_bytes == 16


def test_the_two_directions_of_a_link_do_not_get_in_each_others_way():
    schedule = tables.read("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n")
    alone = simulate(schedule, Costs(message_bytes=[3, 0], bandwidth=1))
    arrived = {str(m.producer): m.arrived - m.sent for m in alone.messages}
    assert arrived == {"0F0": 3, "0F1": 5, "1B0": 3, "1B1": 3}


def test_messages_know_who_sent_them_where():
    [down, up] = simulate(tables.read("0F0,0B0\n1F0,1B0\n"), Costs(message_bytes=8, latency=1)).messages
    assert (down.kind, str(down.producer), str(down.consumer)) == ("activation", "0F0", "1F0")
    assert (down.source, down.destination, down.sent, down.arrived, down.size) == (0, 1, 1, 2, 8)
    assert (up.kind, str(up.producer), up.source, up.destination) == ("gradient", "1B0", 1, 0)


def test_neighbouring_chunks_on_one_device_need_no_message():
    timeline = simulate(tables.read(tables.V_SHAPED), Costs(latency=100))
    assert timeline.message_count == 4
    assert timeline.makespan == 8 * 0.5 + 4 * 100


# ---- weights ---------------------------------------------------------------------------------------------------------


def test_64_sequences_in_12_microbatches_take_as_long_as_their_sizes_say():
    schedule = build_schedule("1f1b", devices=4, microbatches=12)
    timeline = simulate(schedule, Costs(forward=12, backward=12), batch=64)
    durations = {a.microbatch: span.duration for span in timeline.spans for a in oracle.parts(span.slot)}
    assert [durations[i] * 64 / 144 for i in range(12)] == pytest.approx([6] * 4 + [5] * 8)
    assert timeline.sequences == pytest.approx(64 / 12)
    assert timeline.peak_sequences == pytest.approx((24, 18, 12, 6))


def test_an_even_batch_changes_no_times():
    schedule = build_schedule("1f1b", devices=4, microbatches=4)
    assert simulate(schedule, batch=64).spans == simulate(schedule).spans


@pytest.mark.parametrize("batch", [0, -4, True, 2.5, "64"])
def test_a_batch_must_be_a_whole_number_of_sequences(batch):
    with pytest.raises(ConfigurationError, match=r"batch.* must be a whole number of at least 1, got"):
        simulate(build_schedule("1f1b", devices=2, microbatches=2), batch=batch)


def test_a_batch_may_be_an_integer_of_another_library_as_m_may():
    class Integer:
        def __index__(self):
            return 64

    assert simulate(build_schedule("1f1b", devices=2, microbatches=2), batch=Integer()).sequences == 32


def test_a_batch_smaller_than_m_is_refused():
    with pytest.raises(ConfigurationError, match="at least 8 sequences, got 4; try m = 4"):
        simulate(build_schedule("1f1b", devices=2, microbatches=8), batch=4)


# ---- fused slots, recomputation, updates -----------------------------------------------------------------------------


def test_overlap_in_fused_slots_shortens_the_run():
    fused = tables.read(tables.FUSED)
    assert simulate(fused, Costs(fused={"FB": 0.5})).makespan < simulate(fused).makespan


def test_a_fused_slot_waits_for_all_that_its_parts_need():
    timeline = simulate(tables.read(tables.FUSED))
    starts = {span.position: span.start for span in timeline.on_device(0)}
    assert starts[1] == 3  # (0F1;0B0) could run 0F1 at t = 1, but 0B0 needs 1B0, which ends at t = 3


def test_recomputing_costs_gpipe_m_more_forwards_not_m_plus_p_minus_1():
    """On every device the first R hides in the wait for the first gradient: a recomputation needs no gradient."""
    plain = build_schedule("gpipe", devices=4, microbatches=4)
    assert simulate(plain.with_recompute()).makespan == simulate(plain).makespan + 4


def test_a_split_backward_lets_the_gradient_leave_early():
    """With I sent on before W is done, the stage before waits only for half a backward."""
    whole, split = tables.read("0F0,0B0\n1F0,1B0\n"), tables.read("0F0,0I0,0W0\n1F0,1I0,1W0\n")
    assert simulate(whole).makespan == 4
    assert simulate(split).makespan == 3.5


def test_updates_are_reported_beside_the_makespan():
    schedule = Schedule.from_csv("0F0,0B0,0U0\n1F0,1B0,1U0\n")
    timeline = simulate(schedule, Costs(update=5))
    assert timeline.makespan == 4
    assert {(str(span.slot), span.start, span.end) for span in timeline.updates} == {("0U0", 4, 9), ("1U0", 3, 8)}
    assert all("U" not in str(span.slot) for span in timeline.spans)
    assert timeline.bubble_fraction == pytest.approx(0.5)


def test_an_update_between_two_microbatches_holds_up_the_second():
    timeline = simulate(Schedule.from_csv("0F0,0B0,0U0,0F1,0B1,0U1\n"), Costs(update=5))
    assert [(str(span.slot), span.start) for span in timeline.spans] == [
        ("0F0", 0),
        ("0B0", 1),
        ("0F1", 7),
        ("0B1", 8),
    ]


# ---- activation bytes ------------------------------------------------------------------------------------------------


def test_activation_bytes_rise_and_fall_with_what_is_in_flight():
    schedule = build_schedule("1f1b", devices=4, microbatches=4)
    timeline = simulate(schedule, Costs(activation_bytes=10))
    assert timeline.peak_bytes == (40, 30, 20, 10)
    assert [holding.steps[-1][1] for holding in timeline.holdings] == [0, 0, 0, 0]
    assert timeline.holdings[3].steps[:3] == ((3, 10), (5, 0), (5, 10))


def test_with_recomputation_only_one_microbatch_at_a_time_holds_its_activations():
    schedule = build_schedule("gpipe", devices=4, microbatches=4, recompute=True)
    assert simulate(schedule, Costs(activation_bytes=10)).peak_bytes == (10, 10, 10, 10)


def test_of_a_split_backward_activations_are_held_until_the_last_half():
    timeline = simulate(tables.read("0F0,0I0,0F1,0W0,0I1,0W1\n"), Costs(activation_bytes=10))
    assert timeline.peak_bytes == (20,)


def test_activation_bytes_by_stage_are_taken_as_they_are():
    schedule = build_schedule("gpipe", devices=2, microbatches=3)
    assert simulate(schedule, Costs(activation_bytes=[1, 2])).peak_bytes == (3, 6)


def test_where_bytes_are_not_known_none_are_reported():
    assert simulate(build_schedule("gpipe", devices=2, microbatches=3)).peak_bytes == ()


def test_a_device_without_work_stays_idle():
    """The one stage is then the whole model, two devices' shares of it."""
    timeline = simulate(replace(tables.read("0F0,0B0\n"), programs=((Action(0, "F", 0), Action(0, "B", 0)), ())))
    assert timeline.busy == (4, 0)
    assert timeline.bubble_fraction == 0.5


def test_what_is_recomputed_is_kept_as_its_input_until_then():
    """GPipe with R: four inputs wait on each device, and one micro-batch at a time is kept whole."""
    schedule = build_schedule("gpipe", devices=2, microbatches=4, recompute=True)
    timeline = simulate(schedule, Costs(activation_bytes=100, input_bytes=[3, 7]))
    assert timeline.peak_bytes == (100 + 3 * 3, 100 + 3 * 7)
    assert timeline.holdings[0].steps[-1][1] == 0
    plain = simulate(
        build_schedule("gpipe", devices=2, microbatches=4), Costs(activation_bytes=100, input_bytes=[3, 7])
    )
    assert plain.peak_bytes == (400, 400)


@given(sound_tables(), st.floats(0.1, 5), st.floats(0.1, 5), st.integers(0, 100), st.booleans())
def test_what_devices_hold_needs_no_clock(schedule, forward, backward, kept_input, whole_batch):
    costs = Costs(forward, backward, activation_bytes=100, input_bytes=kept_input, message_bytes=7)
    batch = schedule.microbatches + 3 if whole_batch else None
    assert peak_activation_bytes(schedule, costs, batch=batch) == pytest.approx(
        simulate(schedule, costs, batch=batch).peak_bytes
    )


def test_where_bytes_are_not_known_no_peak_is_either():
    assert peak_activation_bytes(build_schedule("gpipe", devices=2, microbatches=3)) == ()


# ---- many at once ----------------------------------------------------------------------------------------------------


@given(sound_tables(), st.lists(eighths, max_size=4), st.sampled_from([None, 24]))
def test_a_sweep_is_one_prediction_after_another(schedule, latencies, batch):
    costs = [Costs(forward=1, backward=2, latency=latency) for latency in latencies]
    assert sweep(schedule, iter(costs), batch=batch) == tuple(simulate(schedule, one, batch=batch) for one in costs)


def test_a_sweep_refuses_an_unsound_table_and_what_are_no_costs():
    with pytest.raises(ScheduleError, match="before 0F0"):
        sweep(tables.read("0B0,0F0\n1F0,1B0\n"), [Costs()])
    with pytest.raises(ConfigurationError, match="costs must be Costs, got int"):
        sweep(build_schedule("1f1b", 2, 2), [Costs(), 1])
