"""Schedules without a flush: which version a forward uses, and what the checker says of updates in the wrong place."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab import build_schedule, check_schedule
from pipelab.schedules import Action, Schedule, TimeTable
from pipelab.schedules.action import Updating
from pipelab.schedules.updates import ages, over, versions
from tests import oracle
from tests.strategies import allowed_microbatches, reordered

NAMES = ["pipedream", "vertical-sync", "2bw"]
SHAPES = [(name, p, m) for name in NAMES for p in range(1, 6) for m in allowed_microbatches(name, p, 1, 7)]


@st.composite
def endless(draw):
    name, p, m = draw(st.sampled_from(SHAPES))
    return over(build_schedule(name, p, m), draw(st.integers(1, 3)))


def table(*rows, updating=None):
    return replace(Schedule.from_rows([row.split(",") for row in rows]), updating=updating)


def moved(schedule, device, action, before):
    """``action`` of a device, put before another one; "" is the end."""
    row = [one for one in schedule.programs[device] if str(one) != action]
    at = next((k for k, one in enumerate(row) if str(one) == before), len(row))
    row.insert(at, Action.parse(action))
    programs = list(schedule.programs)
    programs[device] = tuple(row)
    return replace(schedule, programs=tuple(programs))


def found_in(schedule, **options):
    found = check_schedule(schedule, **options)
    assert (schedule.resolved is None) or options
    return [(v.code, v.device, v.position, str(v.action), v.blocker and str(v.blocker)) for v in found], found


@pytest.mark.parametrize(("name", "p", "m"), SHAPES)
def test_what_the_generators_write_is_sound_over_any_number_of_steps(name, p, m):
    for steps in (1, 2, 3):
        schedule = over(build_schedule(name, p, m), steps)
        assert schedule.resolved is not None
        assert check_schedule(replace(schedule)) == []
        assert check_schedule(TimeTable.from_grid(schedule.to_grid())) == []


@pytest.mark.parametrize(("name", "p", "m"), SHAPES)
def test_versions_are_those_of_the_papers(name, p, m):
    used = versions(over(build_schedule(name, p, m), 3))
    said = {
        "pipedream": lambda s, i: max(0, i - (p - 1 - s)),
        "vertical-sync": lambda s, i: max(0, i - (p - 1)),
        "2bw": lambda s, i: max(i // m - 1, 0),
    }[name]
    assert used == {Action(s, "F", i): said(s, i) for s in range(p) for i in range(3 * m)}


def test_at_steady_state_vertical_sync_is_as_far_behind_everywhere():
    old = ages(over(build_schedule("vertical-sync", 4, 4), 3))
    assert [old[Action(s, "F", 8)] for s in range(4)] == [0, 1, 2, 3]


# ---- faults ----------------------------------------------------------------------------------------------------------


def test_an_update_waits_for_all_gradients_of_its_group():
    whole = over(build_schedule("2bw", 2, 3), 2)
    wrong = moved(whole, 1, "1U2", before="1B1")
    brief, found = found_in(wrong)
    assert ("order", 1, 3, "1U2", "1B1") in brief
    said = next(v.message for v in found if str(v.blocker) == "1B1")
    assert said == (
        "device 1 runs 1U2 at position 3, before 1B1 at position 4: this update takes the gradients of micro-batches "
        "0, 1, 2; put 1U2 behind 1B1"
    )


def test_a_gradient_before_the_update_of_the_group_before_it_goes_into_the_wrong_one():
    whole = over(build_schedule("2bw", 2, 2), 2)
    brief, [found] = found_in(moved(whole, 1, "1U1", before="1F3"))
    assert brief == [("wrong-update", 1, 5, "1B2", "1U1")]
    assert found.message == (
        "device 1 runs 1B2 at position 5, before 1U1: its gradient would go into 1U1, which makes version 1 of stage "
        "1's weights from micro-batches 0, 1; put 1B2 behind 1U1"
    )


def test_a_gradient_behind_the_last_update_is_lost():
    brief, found = found_in(table("0F0,0B0,0U0,0F1,0B1"))
    assert brief == [("lost-gradient", 0, 4, "0B1", "0U0")]
    assert "behind 0U0, the last update of its stage: no update ever uses its gradient" in found[0].message
    brief, found = found_in(table("0F0,0F1,0F2,0B0,0B1,0U1,0B2", updating=Updating("newest", 2)))
    assert brief == [("lost-gradient", 0, 6, "0B2", "0U1")]


def test_a_forward_must_not_come_before_the_update_that_makes_its_version():
    whole = over(build_schedule("2bw", 4, 4), 3)
    brief, [found] = found_in(moved(whole, 0, "0F8", before="0U3"))
    assert brief == [("no-version", 0, 11, "0F8", "0U3")]
    assert found.message == (
        "device 0 runs 0F8 at position 11 with version 1 of stage 0's weights, which only 0U3 at position 12 makes; "
        "the newest there is version 0; put 0U3 before it"
    )


def test_under_vertical_sync_a_stage_must_not_be_behind_the_first():
    rows = "0F0,0B0,0U0,0F1,0B1,0U1", "1F0,1B0,1F1,1B1,1U0,1U1"
    brief, _ = found_in(table(*rows, updating=Updating("input")))
    assert ("no-version", 1, 2, "1F1", "1U0") in brief
    assert "no-version" not in {code for code, *_ in found_in(table(*rows, updating=Updating("newest")))[0]}


def test_a_stage_without_one_of_its_updates_is_told_which():
    whole = build_schedule("pipedream", 3, 4)
    programs = list(whole.programs)
    programs[1] = tuple(slot for slot in programs[1] if str(slot) != "1U2")
    brief, found = found_in(replace(whole, programs=tuple(programs)))
    assert brief == [("missing", 1, None, "1U2", None)]
    assert found[0].message == (
        "1U2 is missing on device 1: stage 1 is updated 3 times, it should be 4 times, as often as the others; put it "
        "behind the backward of micro-batch 2"
    )


def test_without_a_rule_stages_are_held_against_each_other():
    brief, found = found_in(table("0F0,0F1,0B0,0U0,0B1,0U1", "1F0,1B0,1F1,1B1,1U1"))
    assert [code for code, *_ in brief] == ["updates"]
    assert "stage 0 is updated 2 times, it should be 1 time" in found[0].message
    assert found_in(table("0F0,0F1,0B0,0U0,0B1,0U1", "1F0,1B0,1F1,1U0,1B1,1U1", "2F0,2B0,2F1,2B1,2U1"))[0] == [
        ("missing", 2, None, "2U0", None)
    ]


def test_without_a_rule_an_update_may_take_several_gradients():
    assert check_schedule(table("0F0,0F1,0B0,0B1,0U1", "1F0,1B0,1F1,1B1,1U1")) == []


def test_an_evaluation_has_no_updates_to_miss():
    assert check_schedule(over(build_schedule("2bw", 2, 2), 3).forward_part()) == []


def test_without_a_stash_a_backward_behind_an_update_has_lost_its_weights():
    schedule = build_schedule("pipedream", 2, 2)
    assert check_schedule(schedule) == []
    brief, [found] = found_in(schedule, stash=False)
    assert brief == [("version-gone", 0, 4, "0B1", "0U0")]
    assert found.message == (
        "device 0 runs 0B1 at position 4, whose forward used version 0 of stage 0's weights. 0U0 at position 3 has "
        "written version 1 over it. Keep versions (stash=True), or move 0U0 behind 0B1"
    )
    assert check_schedule(build_schedule("1f1b", 4, 8), stash=False) == []
    assert check_schedule(build_schedule("pipedream", 1, 4), stash=False) == []


@given(reordered(endless()))
def test_reordered_tables_are_sound_exactly_when_playing_them_says_so(schedule):
    sound = oracle.run_all_that_can(schedule) and oracle.trains_by_its_rule(schedule)
    assert (check_schedule(schedule) == []) == (schedule.resolved is not None) == sound
    if sound:
        assert (check_schedule(schedule, stash=False) != []) == oracle.needs_a_stash(schedule)


@given(reordered(endless()), st.data())
def test_tables_without_a_rule_are_sound_exactly_when_all_stages_do_alike(schedule, data):
    dropped = data.draw(st.sets(st.integers(0, schedule.microbatches - 1)))
    programs = [[a for a in row if not (a.op == "U" and a.microbatch in dropped)] for row in schedule.programs]
    plain = replace(schedule, programs=tuple(map(tuple, programs)), updating=None)
    sound = oracle.run_all_that_can(plain) and oracle.trains_by_its_rule(plain)
    assert (check_schedule(plain) == []) == (plain.resolved is not None) == sound
