from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis.strategies import just

from pipelab import ConfigurationError, build_schedule, check_schedule, simulate
from pipelab.schedules import Schedule, TimeTable, actions_of, format_slot
from pipelab.simulation import Costs
from pipelab.teaching.board import drop, early_spots, follow, start_early, swap
from tests import oracle, tables
from tests.fuzz.cases import fuzzed
from tests.strategies import damaged, reordered, schedules, sound_tables
from tests.teaching.board.boards import act

ONE_F_ONE_B = build_schedule("1f1b", 3, 4)
GPIPE = build_schedule("gpipe", 2, 2)


def row(schedule, device):
    return [format_slot(slot) for slot in schedule.programs[device]]


def stuck_at(consequence):
    return [(one.device, one.slot, one.waits_for) for one in consequence.stuck]


# ---- three breaks ----------------------------------------------------------------------------------------------------


def test_drop_takes_one_slot_out():
    broken = drop(GPIPE, 1, 2)
    assert row(broken, 1) == ["1F0", "1F1", "1B1"]
    assert broken.programs[0] == GPIPE.programs[0]
    assert (broken.name, broken.placement, broken.weights) == ("gpipe without 1B0", GPIPE.placement, GPIPE.weights)


def test_swap_turns_two_slots_round():
    broken = swap(GPIPE, 0, 1)
    assert row(broken, 0) == ["0F0", "0B0", "0F1", "0B1"]
    assert broken.name == "gpipe with 0B0 before 0F1"


def test_start_early_moves_one_slot_before_its_input():
    table = start_early(GPIPE, 1, 0)
    assert [slot and str(slot) for slot in table.rows[1]] == ["1F0", None, "1F1", "1B0", "1B1"]
    assert [violation.code for violation in check_schedule(table)] == ["too-early"]


@pytest.mark.parametrize(
    ("breaking", "words"),
    [
        (lambda: drop(GPIPE, 2, 0), r"there is no device 2; devices are 0\.\.1"),
        (lambda: drop(GPIPE, 0, 4), r"device 0 has no position 4; it has positions 0\.\.3"),
        (lambda: swap(GPIPE, 0, -1), "no position -1"),
        (lambda: swap(GPIPE, 0, 3), "0B1 is the last action of device 0, so none follows it; try position 2"),
        (
            lambda: start_early(GPIPE, 0, 0),
            r"0F0 starts at t = 0 on device 0, and time begins at t = 0, so it waits for no other device; try 0B0 "
            r"\(device 0, position 2\)",
        ),
        (lambda: start_early(GPIPE, 0, 1), "0F1 starts at t = 1 on device 0, and 0F0 runs until then"),
        (lambda: start_early(build_schedule("gpipe", 1, 2), 0, 0), "no action here waits for one"),
    ],
)
def test_a_break_that_cannot_be_made_says_why(breaking, words):
    with pytest.raises(ConfigurationError, match=words):
        breaking()


@fuzzed(schedules(max_p=4, max_m=6, max_v=2), few=10, many=60)
def test_every_early_spot_and_no_other_can_start_early(schedule):
    spots = early_spots(schedule)
    for device, program in enumerate(schedule.programs):
        for position in range(len(program)):
            if (device, position) in spots:
                table = start_early(schedule, device, position)
                found = check_schedule(table)
                assert "too-early" in {violation.code for violation in found}
                assert (
                    table.schedule(placement=schedule.placement, weights=schedule.weights).programs == schedule.programs
                )
            else:
                with pytest.raises(ConfigurationError):
                    start_early(schedule, device, position)


# ---- what follows ----------------------------------------------------------------------------------------------------


def test_a_dropped_forward_stops_all_devices():
    found = follow(drop(ONE_F_ONE_B, 0, 1))
    assert found.hangs
    assert not found.sound
    assert stuck_at(found) == [(0, "0B0", "1B0"), (1, "1F1", "0F1"), (2, "2F1", "1F1")]
    assert found.sentences == (
        "The step never ends: after 4 units nothing moves any more, 5 of 23 actions have run and 3 devices wait.",
        "Device 1 waits at 1F1 forever: 0F1 is not in the table, so its input never comes.",
        "Device 0 waits at 0B0 forever: it needs 1B0, and device 1 itself waits at 1F1.",
        "Device 2 waits at 2F1 forever: it needs 1F1, and device 1 itself waits at 1F1.",
    )


def test_a_dropped_backward_of_a_later_stage_stops_those_before_it():
    found = follow(drop(ONE_F_ONE_B, 1, 7))
    assert stuck_at(found) == [(0, "0B3", "1B3")]
    assert found.sentences[1:] == (
        "Device 0 waits at 0B3 forever: 1B3 is not in the table, so its gradient never comes.",
    )
    assert found.ran.makespan == 10


def test_a_dropped_backward_of_stage_0_stops_nobody_and_falsifies_the_gradient():
    found = follow(drop(ONE_F_ONE_B, 0, 7), before=ONE_F_ONE_B)
    assert not found.hangs
    assert found.sentences == (
        "Nothing hangs, but stage 0 gets no gradient from micro-batch 3: its update would use 3 of 4 micro-batches.",
    )
    twice = follow(drop(drop(ONE_F_ONE_B, 0, 7), 0, 6))
    assert twice.sentences == (
        "Nothing hangs, but stage 0 gets no gradient from micro-batches 2 and 3: its update would use 2 of 4 "
        "micro-batches.",
    )


def test_without_any_backward_a_training_schedule_lacks_its_gradient():
    """For the checker a table of forwards alone is one for evaluation, and sound."""
    schedule = build_schedule("gpipe", 1, 1)
    evaluation = drop(schedule, 0, 1)
    assert follow(evaluation).sentences == ("The order is sound: every action can run. It takes 1 unit.",)
    assert follow(evaluation, before=schedule).sentences == (
        "Nothing hangs, but stage 0 gets no gradient from micro-batch 0: its update would use 0 of 1 micro-batch.",
    )


def test_a_timetable_may_be_early_and_lack_something():
    table = start_early(drop(GPIPE, 0, 3), 1, 0)
    assert follow(table, before=GPIPE).sentences == (
        "Device 1 starts 1F0 at t = 0, but device 0 finishes 0F0 only at t = 1. It would compute from an input that is "
        "not there yet.",
        "Nothing hangs, but stage 0 gets no gradient from micro-batch 1: its update would use 1 of 2 micro-batches.",
    )


def test_a_backward_before_its_forward_waits_for_what_stands_behind_it():
    found = follow(swap(ONE_F_ONE_B, 2, 0))
    assert (2, "2B0", "2F0") in stuck_at(found)
    assert found.sentences[1] == ("Device 2 waits at 2B0 forever: it needs 2F0, which comes after it in the same row.")


def test_a_forward_that_is_missing_on_the_same_device_has_kept_nothing():
    found = follow(drop(build_schedule("gpipe", 1, 1), 0, 0), before=build_schedule("gpipe", 1, 1))
    assert found.sentences == (
        "The step never ends: from the start nothing moves any more, 0 of 1 actions have run and 1 device waits.",
        "Device 0 waits at 0B0 forever: 0F0 is not in the table, so nothing was kept for it.",
    )


def test_a_ring_has_no_single_cause():
    rows = [["0F0", "0B0", "0F1", "0B1"], ["1F0", "1F1", "1B0", "1B1"]]
    found = follow(Schedule.from_rows(rows))
    assert stuck_at(found) == [(0, "0B0", "1B0"), (1, "1F1", "0F1")]
    assert found.sentences == (
        "The step never ends: after 2 units nothing moves any more, 2 of 8 actions have run and 2 devices wait.",
        "Devices 0 and 1 wait for each other in a ring.",
        "Device 0 waits at 0B0 forever: it needs 1B0, and device 1 itself waits at 1F1.",
        "Device 1 waits at 1F1 forever: it needs 0F1, and device 0 itself waits at 0B0.",
    )


def test_what_can_never_run_anywhere_is_told():
    misplaced = follow(Schedule.from_rows([["0F0", "1F0"], ["1B0"]], placement=[[0], [1]]))
    assert misplaced.sentences[1] == "Device 0 waits at 1F0 forever: stage 1 lives on device 1."
    assert misplaced.stuck[0].waits_for == ""
    unknown = follow(Schedule.from_rows([["0F0", "0F7"]], weights=[1.0]))
    assert unknown.sentences[1] == "Device 0 waits at 0F7 forever: micro-batches are 0..0."


def test_what_a_forward_kept_stays_on_its_device():
    found = follow(Schedule.from_rows([["0F0"], ["0B0"]], placement=[[0, 1]]))
    assert stuck_at(found) == [(1, "0B0", "0F0")]
    assert found.sentences[1] == ("Device 1 waits at 0B0 forever: it needs what 0F0 kept, and that stays on device 0.")


def test_a_harmless_swap_says_what_it_costs():
    found = follow(swap(ONE_F_ONE_B, 0, 0), before=ONE_F_ONE_B)
    assert found.sound
    assert found.sentences == (
        "The order is sound: every action can run. It takes 13 units, 1 unit longer than before.",
        "Each device holds as many micro-batches as before.",
    )
    found = follow(swap(ONE_F_ONE_B, 0, 3), before=ONE_F_ONE_B)
    assert found.sentences == (
        "The order is sound: every action can run. It takes as long as before, 12 units.",
        "In flight: device 0 holds at most 4 micro-batches (before: 3).",
    )
    assert follow(ONE_F_ONE_B).sentences == ("The order is sound: every action can run. It takes 12 units.",)


def test_costs_are_those_that_are_given():
    costs = Costs(forward=1, backward=2)
    assert follow(ONE_F_ONE_B, ONE_F_ONE_B, costs).sentences[0].endswith("It takes 18 units.")


def test_a_shorter_change_is_told_too():
    slow = swap(ONE_F_ONE_B, 0, 0)
    assert "1 unit shorter than before" in follow(ONE_F_ONE_B, before=slow).sentences[0]


def test_an_early_start_computes_from_nothing_and_a_run_waits():
    found = follow(start_early(GPIPE, 1, 0), before=GPIPE)
    assert [violation.code for violation in found.violations] == ["too-early"]
    assert found.sentences == (
        "Device 1 starts 1F0 at t = 0, but device 0 finishes 0F0 only at t = 1. It would compute from an input that is "
        "not there yet.",
        "The order is sound: if the devices keep to it, each waits until its input is there. It takes as long as "
        "before, 6 units.",
        "Each device holds as many micro-batches as before.",
    )


def test_what_is_wrong_but_hangs_nowhere_is_said_as_the_checker_says_it():
    twice = Schedule.from_rows([["0F0", "0B0", "0B0"]])
    found = follow(twice)
    assert found.sentences == tuple(violation.message for violation in check_schedule(twice))
    assert not found.hangs


def test_follow_wants_a_table():
    with pytest.raises(ConfigurationError, match="follow takes a Schedule or a TimeTable, got str"):
        follow("0F0")


# ---- against independent answers -------------------------------------------------------------------------------------


@given(sound_tables())
def test_of_a_sound_table_everything_runs_as_simulated(schedule):
    found = follow(schedule, before=replace(schedule))
    assert (found.sound, found.hangs) == (True, False)
    assert found.ran == simulate(schedule)
    assert "as long as before" in found.sentences[0]
    assert len(follow(schedule, before=schedule).sentences) == 1, "nothing to compare with"


def started_by_hand(schedule):
    """How far each device gets, by letting every device that can go one step, again and again."""
    there, reached = set(), [0] * schedule.devices
    known = {(s, i) for s in range(schedule.stages) for i in range(schedule.microbatches)}
    moved = True
    while moved:
        moved = False
        for device, program in enumerate(schedule.programs):
            if reached[device] == len(program):
                continue
            done = set(there)
            fine = True
            for action in actions_of(program[reached[device]]):
                fine &= (action.stage, action.microbatch) in known and device in schedule.placement[action.stage]
                fine = fine and all(
                    any(one in done for one in options) for options in hand_needs(action, schedule.stages, device)
                )
                done.add((action, device))
                done.add((action, None))
            if fine:
                there, moved = done, True
                reached[device] += 1
    return tuple(reached)


def hand_needs(action, stages, device):
    """The rules for F, B, I, W and U in plain words: for each need, what would meet it and where."""
    s, i, op = action.stage, action.microbatch, action.op
    if op == "F":
        return [[(act(f"{s - 1}F{i}"), None)]] if s else []
    if op == "W" and s:
        return [[(act(f"{s}I{i}"), device)]]
    if op == "U":
        return [[(act(f"{s}B{i}"), device), (act(f"{s}W{i}"), device)]]
    below = [[(act(f"{s + 1}B{i}"), None), (act(f"{s + 1}I{i}"), None)]] if s + 1 < stages else []
    return [[(act(f"{s}F{i}"), device)], *below]


@given(
    damaged(["drop", "move", "unknown stage", "unknown micro-batch"]) | reordered(schedules(max_p=4, max_m=5, max_v=2))
)
def test_what_runs_before_the_standstill_is_what_can_be_run_by_hand(schedule):
    if any(a.op == "W" and a.stage == 0 for _, _, a in schedule.actions()):
        return  # whether stage 0's W needs an I depends on the table: the plain words above do not say it
    found = follow(schedule)
    spans = (*found.ran.spans, *found.ran.updates)
    reached = tuple(sum(span.device == r for span in spans) for r in range(schedule.devices))
    assert reached == started_by_hand(schedule)
    waiting = [r for r, program in enumerate(schedule.programs) if reached[r] < len(program)]
    assert [one.device for one in found.stuck] == waiting
    for one in found.stuck:
        assert one.slot == format_slot(schedule.programs[one.device][reached[one.device]])
        assert one.position == reached[one.device]
        ran = {str(a) for r, k in enumerate(reached) for slot in schedule.programs[r][:k] for a in actions_of(slot)}
        assert one.waits_for not in ran or "stays on device" in one.sentence


@given(reordered() | damaged())
def test_whatever_is_broken_something_is_said_of_it(schedule):
    found = follow(schedule)
    assert found.sentences
    assert all(sentence.strip() == sentence and sentence for sentence in found.sentences)
    assert found.sound == (check_schedule(schedule) == [])
    if found.sound:
        assert not found.hangs
        assert "The order is sound" in found.sentences[0]
    if found.hangs:
        assert not found.sound
        assert "never ends" in found.sentences[0]


@given(sound_tables().flatmap(lambda schedule: reordered(just(schedule))))
def test_what_hangs_is_what_the_oracle_of_the_checker_cannot_run(schedule):
    assert follow(schedule).hangs == (not oracle.run_all_that_can(schedule))


def test_fused_and_split_tables_can_be_followed():
    for text in tables.SOUND.values():
        schedule = tables.read(text)
        assert not follow(schedule).hangs
        for device, program in enumerate(schedule.programs):
            for position in range(len(program)):
                assert follow(drop(schedule, device, position)).sentences


def test_a_timetable_without_its_origin_is_read_off_its_cells():
    table = TimeTable.from_csv("0F0,,,0B0\n,1F0,1B0")
    assert follow(table).sentences == ("The order is sound: every action can run. It takes 4 units.",)
