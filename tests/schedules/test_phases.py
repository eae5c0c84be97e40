from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab.schedules import Action, Schedule, build_schedule
from pipelab.schedules.action import actions_of
from pipelab.schedules.phases import NAMES, phases
from tests.view.scenes import FUSED, SPLIT, every

small = st.integers(1, 8)


def lengths(program, op=None):
    """How many slots (or actions of one op) each phase has."""
    found = dict.fromkeys(NAMES, 0)
    for phase in phases(program):
        slots = program[phase.start : phase.stop]
        found[phase.name] = len(slots) if op is None else sum(a.op == op for s in slots for a in actions_of(s))
    return tuple(found.values())


def program_of(text):
    return Schedule.from_csv(text).programs[0]


@given(p=small, m=small)
def test_1f1b_warms_up_for_p_minus_1_minus_r_forwards_and_cools_down_for_as_many_backwards(p, m):
    for r, program in enumerate(build_schedule("1f1b", p, m).programs):
        w = min(p - 1 - r, m)
        if m - w > 1:  # several pairs: they alternate
            assert lengths(program, "F") == (w, m - w, 0)
            assert lengths(program, "B") == (0, m - w, w)
        else:  # the program of GPipe
            assert lengths(program) == (m, 0, m)


@given(p=small, m=small)
def test_all_forwards_before_all_backwards_have_no_steady_phase(p, m):
    for name in ("gpipe", "naive"):
        for program in build_schedule(name, p, m).programs:
            half = len(program) // 2
            assert lengths(program) == (half, 0, half)


@given(p=st.integers(1, 5), groups=st.integers(1, 4), v=st.integers(1, 3))
def test_interleaved_has_the_warm_up_of_its_definition(p, groups, v):
    m = p * groups
    for r, program in enumerate(build_schedule("interleaved", p, m, v).programs):
        w = min(2 * (p - 1 - r) + (v - 1) * p, m * v)
        if m * v - w > 1:
            assert lengths(program) == (w, 2 * (m * v - w), w)


@given(p=small, m=small, name=st.sampled_from(["gpipe", "1f1b", "naive"]))
def test_recomputation_moves_no_boundary(p, m, name):
    plain, again = build_schedule(name, p, m), build_schedule(name, p, m, recompute=True)
    for a, b in zip(plain.programs, again.programs, strict=True):
        assert lengths(a, "F") == lengths(b, "F")
        assert lengths(a, "B") == lengths(b, "B") == lengths(b, "R")


def test_phases_of_every_schedule_are_in_order_without_gap_or_overlap():
    for schedule in every(range(1, 7), range(1, 13)):
        for program in schedule.programs:
            found = phases(program)
            assert [NAMES.index(phase.name) for phase in found] == sorted(NAMES.index(phase.name) for phase in found)
            assert all(phase.start < phase.stop for phase in found)
            assert all(a.stop == b.start for a, b in pairwise(found))
            if found:
                behind = program[found[-1].stop :]
                assert (found[0].start, {slot.op for slot in behind} - {"U"}) == (0, set())


def test_a_fused_slot_is_steady_and_takes_no_forward_from_the_warm_up():
    assert [lengths(program) for program in FUSED.programs] == [(3, 1, 3), (2, 2, 2)]


def test_with_split_backwards_the_steady_phase_ends_with_the_input_gradient_that_answers_the_last_forward():
    assert [lengths(program) for program in SPLIT.programs] == [(1, 4, 4), (0, 7, 2)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0F0,0F1,0I0,0W0,0F2,0I1,0W1,0I2,0W2", (1, 6, 2)),  # W right behind its I stays with it
        ("0F0,0F1,0R0,0B0,0F2,0R1,0B1,0R2,0B2", (1, 6, 2)),  # R counts with its B
        ("0F0,0F1,0B0,0F2,0W9,0B1,0B2", (1, 5, 1)),  # a late W does not answer a forward
        ("0F0,0B0,0U0,0F1,0B1,0U1", (0, 5, 0)),  # an update alone is no cool-down
        ("0F0,0F1,0F2", (0, 0, 0)),
        ("0B0,0B1", (0, 0, 0)),
        ("0B0,0F0", (0, 2, 0)),  # nonsense, but drawn while it is being written
    ],
)
def test_small_programs(text, expected):
    assert lengths(program_of(text)) == expected


def test_an_empty_program_has_no_phases():
    assert phases(()) == ()
    assert phases((Action(0, "U", 0),)) == ()
