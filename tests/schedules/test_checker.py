from dataclasses import replace

import pytest
from hypothesis import find, given
from hypothesis import strategies as st

from pipelab import ConfigurationError, ScheduleError
from pipelab.schedules import (
    CODES,
    Action,
    Schedule,
    TimeTable,
    build_schedule,
    check_schedule,
    require_sound,
    why_blocked,
)
from tests import oracle, tables
from tests.strategies import DAMAGES, damaged, reordered, schedules, sound_tables
from tests.tables import read, round_robin_table


def act(token):
    return Action.parse(token)


def brief(violations):
    """(code, device, position, action, blocker), as a reader would note them down."""
    return [(v.code, v.device, v.position, str(v.action), v.blocker and str(v.blocker)) for v in violations]


def coded(violations, code):
    return [violation for violation in violations if violation.code == code]


def two_devices(first, second, microbatches=2):
    return round_robin_table(first, second, stages=2, microbatches=microbatches)


# ---- sound -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tables.SOUND)
def test_tables_by_hand_are_sound(name):
    assert check_schedule(read(tables.SOUND[name])) == []


@given(sound_tables())
def test_a_sound_table_drawn_as_early_as_it_can_run_is_sound_in_time_too(schedule):
    table = TimeTable.from_grid(schedule.to_grid())
    assert check_schedule(table) == []


def test_require_sound_lets_a_sound_table_pass():
    require_sound(build_schedule("1f1b", devices=4, microbatches=4))


# ---- missing ---------------------------------------------------------------------------------------------------------


def test_a_missing_backward_is_named_with_the_device_that_should_run_it():
    found = check_schedule(two_devices("0F0,0F1,0B0,0B1", "1F0,1B0,1F1"))
    assert brief(found) == [("no-input", 0, 3, "0B1", "1B1"), ("missing", 1, None, "1B1", None)]
    assert found[1].message == "1B1 is missing on device 1: stage 1 never runs micro-batch 1 backward"


def test_a_missing_forward_leaves_two_others_without_input():
    found = check_schedule(two_devices("0F0,0F1,0B0,0B1", "1F0,1B0,1B1"))
    assert brief(found) == [("missing", 1, None, "1F1", None), ("no-input", 1, 2, "1B1", "1F1")]
    found = check_schedule(two_devices("0F0,0B0,0B1", "1F0,1B0,1F1,1B1"))
    assert brief(found) == [
        ("missing", 0, None, "0F1", None),
        ("no-input", 0, 2, "0B1", "0F1"),
        ("no-input", 1, 2, "1F1", "0F1"),
    ]


def test_a_missing_weight_half_is_asked_for():
    found = check_schedule(two_devices("0F0,0B0", "1F0,1I0", microbatches=1))
    assert brief(found) == [("missing", 1, None, "1W0", None)]
    assert "no action computes that of the weights" in found[0].message


def test_a_missing_input_half_is_asked_for_behind_stage_0_only():
    found = check_schedule(two_devices("0F0,0W0", "1F0,1W0", microbatches=1))
    assert brief(coded(found, "missing")) == [("missing", 1, None, "1I0", None)]
    assert check_schedule(two_devices("0F0,0W0", "1F0,1I0,1W0", microbatches=1)) == []


def test_a_missing_row_is_reported_action_by_action():
    found = check_schedule(Schedule("half", (read(tables.SPLIT).programs[0], ()), ((0,), (1,)), (1.0, 1.0)))
    assert [(v.device, str(v.action)) for v in coded(found, "missing")] == [
        (1, "1F0"),
        (1, "1B0"),
        (1, "1F1"),
        (1, "1B1"),
    ]


def test_forwards_alone_miss_no_backward():
    assert check_schedule(read("0F0,0F1\n1F0,1F1\n")) == []


def test_one_backward_makes_it_a_training_table_that_misses_the_others():
    found = check_schedule(two_devices("0F0,0F1", "1F0,1B0,1F1"))
    assert [str(v.action) for v in coded(found, "missing")] == ["0B0", "0B1", "1B1"]


# ---- duplicate -------------------------------------------------------------------------------------------------------


def test_a_duplicate_is_named_where_it_stands_the_second_time():
    [found] = check_schedule(two_devices("0F0,0F1,0B0,0B1", "1F0,1B0,1F1,1F0,1B1"))
    assert brief([found]) == [("duplicate", 1, 3, "1F0", "1F0")]
    assert "runs 1F0 at position 3, but it already stands on device 1 at position 0" in found.message


def test_a_duplicate_inside_a_fused_slot_is_found():
    found = check_schedule(read("0F0,(0F1;0B0),(0F1;0B1)\n"))
    assert brief(coded(found, "duplicate")) == [("duplicate", 0, 2, "0F1", "0F1")]


def test_a_backward_is_whole_or_in_halves_not_both():
    found = check_schedule(read("0F0,0B0,0I0,0W0\n"))
    assert brief(found) == [("duplicate", 0, 2, "0I0", "0B0"), ("duplicate", 0, 3, "0W0", "0B0")]
    assert "not both" in found[0].message


def test_on_two_devices_an_action_still_runs_once():
    found = check_schedule(read("0F0,1F1,1B1,0B0\n0F1,1F0,1B0,0B1,0F0\n"))
    assert brief(coded(found, "duplicate")) == [("duplicate", 1, 4, "0F0", "0F0")]


# ---- unknown ---------------------------------------------------------------------------------------------------------


def test_a_stage_that_does_not_exist_is_told_which_do():
    found = check_schedule(two_devices("0F0,0B0,2F0", "1F0,1B0", microbatches=1))
    assert brief(found) == [("unknown", 0, 2, "2F0", None)]
    assert "there are stages 0..1" in found[0].message


def test_a_microbatch_that_does_not_exist_is_told_which_do():
    found = check_schedule(two_devices("0F0,0F1,0B0,0B1", "1F0,1B0,1F1,1B1,1B7"))
    assert brief(found) == [("unknown", 1, 4, "1B7", None)]
    assert "there are micro-batches 0..1" in found[0].message


@pytest.mark.parametrize("stray", [Action(-1, "F", 0), Action(0, "B", -1)])
def test_counting_below_zero_finds_nothing_either(stray):
    """A listing in sources/003 emits negative micro-batch numbers; Python would read them from the end."""
    sound = build_schedule("1f1b", devices=2, microbatches=2)
    stray_first = replace(sound, programs=((*sound.programs[0], stray), sound.programs[1]))
    assert brief(check_schedule(stray_first)) == [("unknown", 0, 4, str(stray), None)]


def test_an_op_that_does_not_exist_does_not_pass_for_a_backward():
    sound = build_schedule("1f1b", devices=1, microbatches=1)
    strange = replace(sound, programs=((*sound.programs[0], Action(0, "X", 0)),))
    assert ("unknown", 0, 2) in [(v.code, v.device, v.position) for v in check_schedule(strange)]


# ---- misplaced -------------------------------------------------------------------------------------------------------


def test_an_action_on_the_wrong_device_is_told_where_its_stage_lives():
    found = check_schedule(two_devices("0F0,0F1,1F1,0B0,0B1", "1F0,1B0,1B1"))
    assert brief(coded(found, "misplaced")) == [("misplaced", 0, 2, "1F1", None)]
    assert coded(found, "misplaced")[0].message == "device 0 runs 1F1, but stage 1 lives on device 1"


def test_of_a_stage_on_two_devices_both_are_named():
    schedule = Schedule.from_csv("0F0,0B0\n\n0F1,0B1\n", placement=[(0, 1)])
    assert "stage 0 lives on device 0 and device 1" in check_schedule(schedule)[0].message


# ---- order -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "position", "action", "blocker", "reason"),
    [
        ("0B0,0F0", 0, "0B0", "0F0", "a backward needs what its forward kept"),
        ("0F0,0B0,0R0", 1, "0B0", "0R0", "recomputing after the backward is too late"),
        ("0R0,0F0,0B0", 0, "0R0", "0F0", "nothing to recompute before the forward"),
        ("0F0,0W0,0I0", 1, "0W0", "0I0", "W finishes what its I began"),
        ("0F0,0U0,0B0", 1, "0U0", "0B0", "an update needs the gradient"),
        ("0F0,0W0,0R0", 1, "0W0", "0R0", "recomputing after the backward is too late"),
        ("(0B0;0F0)", 0, "0B0", "0F0", "a backward needs what its forward kept"),
    ],
)
def test_a_wrong_order_on_one_device_says_which_comes_first_and_why(text, position, action, blocker, reason):
    found = coded(check_schedule(read(text + "\n")), "order")
    assert brief(found) == [("order", 0, position, action, blocker)]
    assert reason in found[0].message
    assert f"before {blocker}" in found[0].message


def test_a_chunk_cannot_run_before_the_chunk_that_feeds_it_on_the_same_device():
    found = check_schedule(read("1F0,0F0,1B0,0B0\n"))
    assert brief(found) == [("order", 0, 0, "1F0", "0F0")]


def test_a_microbatch_goes_backward_on_the_device_that_took_it_forward():
    crossed = read("0F0,1F1,1B0,0B1\n0F1,1F0,1B1,0B0\n")
    found = coded(check_schedule(crossed), "order")
    assert brief(found) == [
        ("order", 0, 2, "1B0", "1F0"),
        ("order", 0, 3, "0B1", "0F1"),
        ("order", 1, 2, "1B1", "1F1"),
        ("order", 1, 3, "0B0", "0F0"),
    ]
    assert "stays on device 1" in found[0].message


def test_backwards_in_reverse_order_are_as_sound():
    assert check_schedule(read("0F0,0F1,0B1,0B0\n1F0,1F1,1B1,1B0\n")) == []


# ---- no input --------------------------------------------------------------------------------------------------------


def test_an_action_whose_input_never_comes_names_who_should_have_made_it():
    found = coded(check_schedule(two_devices("0F0,0B0,0B1", "1F0,1B0,1F1,1B1")), "no-input")
    assert [v.message for v in found] == [
        "device 0 can never start 0B1 at position 2: 0F1 is not in the table",
        "device 1 can never start 1F1 at position 2: nobody computes its input: 0F1 is not in the table",
    ]


def test_a_gradient_that_nobody_computes_is_called_a_gradient():
    found = coded(check_schedule(two_devices("0F0,0B0", "1F0", microbatches=1)), "no-input")
    assert brief(found) == [("no-input", 0, 1, "0B0", "1B0")]
    assert "nobody computes its gradient: 1B0 is not in the table" in found[0].message


# ---- wait cycles -----------------------------------------------------------------------------------------------------


def test_two_devices_that_wait_for_each_other_are_named_with_what_they_wait_for():
    [found] = check_schedule(read("0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n"))
    assert brief([found]) == [("wait-cycle", 0, 1, "0B0", "1B0")]
    assert found.cycle == ((0, "0B0", "1B0"), (1, "1F1", "0F1"))
    assert found.message == (
        "wait cycle: device 0 cannot start 0B0 before 1B0 comes from device 1; "
        "device 1 cannot start 1F1 before 0F1 comes from device 0; so none of them ever starts"
    )


def test_a_ring_over_three_devices_is_named_hop_by_hop():
    [found] = check_schedule(read("0F0,0B0,0F1,0B1\n1F0,1B0,1F1,1B1\n2F0,2F1,2B0,2B1\n"))
    assert found.cycle == ((0, "0B0", "1B0"), (1, "1B0", "2B0"), (2, "2F1", "1F1"), (1, "1F1", "0F1"))
    for device, slot, awaited in found.cycle:
        assert f"device {device} cannot start {slot} before {awaited} comes" in found.message


def test_a_fused_slot_in_a_ring_is_named_as_a_slot():
    [found] = check_schedule(read("0F0,(0F1;0B0),0B1\n1F0,(1F1;1B0),1B1\n"))
    assert found.code == "wait-cycle"
    assert found.cycle == ((0, "(0F1;0B0)OVERLAP_F_B", "1B0"), (1, "(1F1;1B0)OVERLAP_F_B", "0F1"))


def test_two_rings_are_two_violations():
    first = "0F0,0B0,0F1,0B1,0F2,0B2,0F3,0B3"
    second = "1F0,1F1,1B0,1B1,1F2,1F3,1B2,1B3"
    found = check_schedule(read(f"{first}\n{second}\n"))
    assert [v.cycle for v in found] == [
        ((0, "0B0", "1B0"), (1, "1F1", "0F1")),
        ((0, "0B2", "1B2"), (1, "1F3", "0F3")),
    ]


def test_a_long_ring_is_found_without_running_out_of_stack():
    m = 1500
    first = ",".join(["0F0,0B0", *(f"0F{i}" for i in range(1, m)), *(f"0B{i}" for i in range(1, m))])
    second = ",".join([*(f"1F{i}" for i in range(m)), *(f"1B{i}" for i in range(m))])
    [found] = check_schedule(read(f"{first}\n{second}\n"))
    assert found.cycle[0] == (0, "0B0", "1B0")


# ---- several at once -------------------------------------------------------------------------------------------------


def test_independent_faults_are_all_reported_at_once():
    found = check_schedule(
        round_robin_table(
            "0F0,0B0,0F1,0B1,0F2,0B2,0F3",  # waits for device 1 in a ring; 0B3 is missing
            "1F0,1F1,1B0,1B1,1B2,1F2,9F0,1F3,1B3,1F0",  # 1B2 before 1F2; no stage 9; 1F0 twice
            stages=2,
            microbatches=4,
        )
    )
    assert brief(found) == [
        ("missing", 0, None, "0B3", None),
        ("wait-cycle", 0, 1, "0B0", "1B0"),
        ("order", 1, 4, "1B2", "1F2"),
        ("unknown", 1, 6, "9F0", None),
        ("duplicate", 1, 9, "1F0", "1F0"),
    ]


def test_violations_come_in_the_order_of_the_table():
    found = check_schedule(read("0B1,0F1,0B0,0F0\n1B1,1F1,1B0,1F0\n"))
    places = [(v.device, v.position) for v in found]
    assert len(places) == 4
    assert places == sorted(places)


def test_what_is_not_in_the_table_comes_before_what_is():
    found = check_schedule(two_devices("0F9,0F0,0B0", "1F0", microbatches=1))
    assert [(v.code, v.device) for v in found] == [("unknown", 0), ("no-input", 0), ("missing", 1)]
    found = check_schedule(two_devices("0F9,0F0", "1F0,1B0", microbatches=1))
    assert [(v.code, v.device) for v in found] == [("missing", 0), ("unknown", 0)]


@given(damaged())
def test_every_violation_has_a_known_code_a_place_and_a_sentence(schedule):
    for violation in check_schedule(schedule):
        assert violation.code in CODES
        assert 0 <= violation.device < schedule.devices
        if violation.position is not None:
            assert 0 <= violation.position < len(schedule.programs[violation.device])
        assert str(violation.action) in violation.message or violation.code == "wait-cycle"
        assert str(violation) == f"[{violation.code}] {violation.message}"


@pytest.mark.parametrize(
    ("damage", "codes"),
    [
        ("drop", {"missing"}),
        ("duplicate", {"duplicate"}),
        ("move", {"misplaced", "missing"}),
        ("unknown stage", {"unknown"}),
        ("unknown micro-batch", {"unknown"}),
    ],
)
def test_each_kind_of_damage_is_called_by_its_name(damage, codes):
    assert damage in DAMAGES

    @given(damaged([damage]))
    def always_named(schedule):
        assert codes & {violation.code for violation in check_schedule(schedule)}

    always_named()


def test_require_sound_raises_with_all_violations():
    schedule = read("0B1,0F1,0B0,0F0\n1B1,1F1,1B0,1F0\n")
    with pytest.raises(ScheduleError, match="schedule 'table' cannot run, the checker found 4 violations") as caught:
        require_sound(schedule)
    assert caught.value.violations == tuple(check_schedule(schedule))


# ---- timed tables ----------------------------------------------------------------------------------------------------


def test_the_published_timetable_of_004_misses_3_actions_and_breaks_the_order_7_times():
    """GPU3 never runs three forwards, yet their backwards, and GPU1 takes gradients that do not exist yet."""
    found = check_schedule(TimeTable.from_csv(tables.PUBLISHED_004))
    assert brief(coded(found, "missing")) == [("missing", 3, None, f"3F{i}", None) for i in (1, 2, 3)]
    assert brief(coded(found, "too-early")) == [("too-early", 1, 5 + i, f"1B{i}", f"2B{i}") for i in range(4)]
    assert brief(coded(found, "no-input")) == [("no-input", 3, 4 + i, f"3B{i}", f"3F{i}") for i in (1, 2, 3)]
    assert len(found) == 3 + 7


def test_without_its_times_the_published_order_lacks_only_the_three_forwards():
    found = check_schedule(TimeTable.from_csv(tables.PUBLISHED_004).schedule())
    assert {v.code for v in found} == {"missing", "no-input"}
    assert len(found) == 6


def test_too_early_says_when_the_input_is_there():
    [found] = check_schedule(TimeTable.from_csv("0F0,,0B0\n,1F0,1B0\n"))
    assert brief([found]) == [("too-early", 0, 2, "0B0", "1B0")]
    assert found.message == "device 0 starts 0B0 at t = 2, but device 1 finishes 1B0 only at t = 3"


def test_positions_in_a_timed_table_are_time_slots():
    [found] = check_schedule(TimeTable.from_csv(",,0B0,0F0\n"))
    assert brief([found]) == [("order", 0, 2, "0B0", "0F0")]
    assert "at t = 2, before 0F0 at t = 3" in found.message


def test_waiting_longer_than_needed_is_sound():
    assert check_schedule(TimeTable.from_csv("0F0,,,,,0B0\n,,1F0,1B0\n")) == []


# ---- bounded buffers -------------------------------------------------------------------------------------------------


@given(schedules(max_p=6, max_m=12))
def test_no_generator_needs_more_than_one_message_of_room(schedule):
    """Only interleaved in several groups of more than p does: device 0 takes the first message after a whole group."""
    p, m = schedule.devices, schedule.microbatches
    group = m // max(1, m // p)
    room = group - p + 1 if schedule.name == "interleaved" and group < m else 1
    assert check_schedule(schedule, outstanding=room) == []
    if room > 1 and schedule.chunks > 1:
        assert {found.code for found in check_schedule(schedule, outstanding=room - 1)} == {"wait-cycle"}


@pytest.mark.parametrize("p", [2, 3, 4])
def test_1f1b_with_blocking_sends_is_the_known_deadlock(p):
    """Device r sends an activation while device r + 1 sends it a gradient: neither takes before its send is taken."""
    schedule = build_schedule("1f1b", devices=p, microbatches=2 * p)
    found = check_schedule(schedule, outstanding=0)
    assert {v.code for v in found} == {"wait-cycle"}
    assert any("blocks until" in v.message for v in found)
    assert len({device for v in found for device, *_ in v.cycle}) >= 2


def test_gpipe_with_blocking_sends_runs():
    assert check_schedule(build_schedule("gpipe", devices=4, microbatches=8), outstanding=0) == []


def test_gpipe_on_one_device_and_1f1b_on_the_next_lean_on_an_endless_buffer():
    schedule = tables.gpipe_then_1f1b(8)
    assert check_schedule(schedule) == []
    found = check_schedule(schedule, outstanding=1)
    assert [v.code for v in found] == ["wait-cycle"]
    assert {device for device, *_ in found[0].cycle} == {0, 1}
    assert "blocks until" in found[0].message
    assert check_schedule(schedule, outstanding=8) == []


def test_with_blocking_sends_the_last_slot_of_a_device_holds_up_nobody():
    assert check_schedule(read("0F0,0B0\n1F0,1B0\n"), outstanding=0) == []


def test_a_blocked_send_is_named_with_its_channel_and_the_message_it_waits_for():
    [found] = check_schedule(read("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n"), outstanding=0)
    assert (
        "device 0 cannot go on to 0B0: its send of 0F1 blocks until 0F1 is taken (activations 0 -> 1)" in found.message
    )
    assert "device 1 cannot go on to 1F1: its send of 1B0 blocks until 1B0 is taken (gradients 1 -> 0)" in found.message
    assert {device for device, *_ in found.cycle} == {0, 1}


def test_one_slot_takes_several_messages_one_by_one():
    """Device 0 asks for the gradient that is sent last; it takes the others first, and each frees the sender."""
    schedule = read("0F0,0F1,0F2,0B2,0B1,0B0\n1F0,1F1,1F2,1B0,1B1,1B2\n")
    assert oracle.finishes_with_blocking_sends(schedule, outstanding=0)
    assert check_schedule(schedule, outstanding=0) == []


@given(reordered(), st.integers(0, 2))
def test_bounded_waits_are_those_of_devices_that_really_block(schedule, outstanding):
    if check_schedule(schedule) == []:
        runs = oracle.finishes_with_blocking_sends(schedule, outstanding)
        assert runs == (check_schedule(schedule, outstanding=outstanding) == [])


@given(reordered(), st.integers(0, 2))
def test_groups_wait_as_those_of_devices_that_post_them(schedule, outstanding):
    if check_schedule(schedule) == []:
        runs = oracle.finishes_with_groups(schedule, outstanding)
        assert runs == (check_schedule(schedule, sends="batched", outstanding=outstanding) == [])


@pytest.mark.parametrize("name", ["1f1b", "zb-h1", "v-half", "chimera"])
def test_groups_mend_what_blocking_sends_tie_up(name):
    schedule = build_schedule(name, devices=4, microbatches=8)
    assert check_schedule(schedule, sends="blocking") != []
    assert check_schedule(schedule, sends="batched") == []


def test_sends_say_how_much_room_there_is():
    schedule = build_schedule("1f1b", devices=2, microbatches=4)
    assert check_schedule(schedule, sends="blocking") == check_schedule(schedule, outstanding=0) != []
    assert check_schedule(schedule, sends="blocking", outstanding=1) == check_schedule(schedule) == []
    with pytest.raises(ConfigurationError, match="sends must be one of 'asynchronous', 'blocking', 'batched', got 'b'"):
        check_schedule(schedule, sends="b")


def test_rings_alone_may_be_let_pass():
    require_sound(build_schedule("1f1b", devices=2, microbatches=4), sends="blocking", rings=False)
    with pytest.raises(ScheduleError, match="missing"):
        require_sound(read("0F0\n1F0,1B0\n"), rings=False)


# ---- against a second opinion ----------------------------------------------------------------------------------------


def test_the_reordered_tables_below_are_both_sound_and_not():
    plain = build_schedule("gpipe", devices=2, microbatches=2)
    changed = reordered(st.just(plain)).filter(lambda s: s.programs != plain.programs)
    assert check_schedule(find(changed, lambda s: check_schedule(s) == [])) == []
    assert check_schedule(find(changed, lambda s: check_schedule(s) != [])) != []


@given(reordered())
def test_a_reordered_table_is_sound_exactly_when_trying_it_runs_to_the_end(schedule):
    sound = oracle.run_all_that_can(schedule) and oracle.trains_by_its_rule(schedule)
    assert (check_schedule(schedule) == []) == sound
    assert (schedule.resolved is not None) == sound


# ---- why an action cannot run now ------------------------------------------------------------------------------------

SOUND_1F1B = build_schedule("1f1b", devices=2, microbatches=2)


@pytest.mark.parametrize(
    ("action", "device", "finished", "code", "blocker", "said"),
    [
        ("1F0", 1, {}, "no-input", "0F0", "1F0 needs 0F0, which has not sent its activation yet (device 0)"),
        ("0B0", 0, {"0F0": 0}, "no-input", "1B0", "0B0 needs 1B0, which has not sent its gradient yet (device 1)"),
        ("1B0", 1, {"0F0": 0}, "no-input", "1F0", "1B0 needs 1F0, which has not run yet (this device)"),
        ("0F0", 0, {"0F0": 0}, "duplicate", "0F0", "0F0 has already run on device 0"),
        ("1F0", 0, {"0F0": 0}, "misplaced", None, "1F0 runs on device 1: stage 1 lives there"),
        ("5F0", 0, {}, "unknown", None, "there are stages 0..1"),
        ("0F5", 0, {}, "unknown", None, "there are micro-batches 0..1"),
    ],
)
def test_a_refusal_says_what_is_waited_for(action, device, finished, code, blocker, said):
    finished = {act(token): where for token, where in finished.items()}
    refusal = why_blocked(SOUND_1F1B, act(action), device, finished)
    assert brief([refusal]) == [(code, device, None, action, blocker)]
    assert said in refusal.message


def test_in_a_two_way_pipeline_the_backward_belongs_where_the_forward_was():
    schedule = read(tables.TWO_WAY)
    finished = {act("0F0"): 0, act("1F0"): 1, act("1B0"): 1}
    assert why_blocked(schedule, act("0B0"), 0, finished) is None
    refusal = why_blocked(schedule, act("0B0"), 1, finished)
    assert (refusal.code, str(refusal.blocker)) == ("order", "0F0")


def test_a_recomputation_that_stands_in_the_table_is_waited_for():
    schedule = build_schedule("1f1b", devices=1, microbatches=1, recompute=True)
    assert str(why_blocked(schedule, act("0B0"), 0, {act("0F0"): 0}).blocker) == "0R0"
    assert why_blocked(schedule, act("0B0"), 0, {act("0F0"): 0, act("0R0"): 0}) is None


@pytest.mark.parametrize("stray", [Action(-1, "F", 0), Action(0, "F", -1)])
def test_an_action_below_zero_cannot_run(stray):
    assert why_blocked(SOUND_1F1B, stray, 1 if stray.stage else 0, {}).code == "unknown"


@given(sound_tables(max_p=3, max_m=4), st.data())
def test_an_action_may_run_exactly_when_nothing_blocks_it(schedule, data):
    """Stop a run anywhere: of what has not run yet, exactly what has all it needs is not refused."""
    table = oracle.everything(schedule)
    done = {}
    for _ in range(data.draw(st.integers(0, len(table)), label="steps")):
        able = [a for a, (r, _) in table.items() if a not in done and oracle.may_run(a, r, done, schedule, table)]
        if not able:
            break
        action = data.draw(st.sampled_from(able))
        done[action] = table[action][0]
    for action, (device, _) in table.items():
        if action not in done:
            free = oracle.may_run(action, device, done, schedule, table)
            assert (why_blocked(schedule, action, device, done) is None) == free, action
