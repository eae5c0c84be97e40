"""That the check's run and rings are right, and what it accepts."""

from random import Random

import pytest

from pipelab.teaching.exercises.lesson_09.find_deadlock import (
    EXERCISE,
    Rules,
    _drawn,
    _of_schedule,
    _programs,
    _read,
    in_rings,
    run,
)
from tests.teaching.exercises.trying import assert_reserved, open_parts

CASES = [*EXERCISE.visible, *(case for seed in range(4) for case in _drawn(Random(seed)))]


def at_random(programs, random):
    """Where devices stop if any pair that can pass does so next, in a random order."""
    at = [0] * len(programs)
    while True:
        now = [row[k] if k < len(row) else None for row, k in zip(programs, at, strict=True)]
        pairs = [
            (a, step[1])
            for a, step in enumerate(now)
            if step and step[0] == "send" and now[step[1]] == ("recv", a, step[2])
        ]
        if not pairs:
            return at, now
        for device in random.choice(pairs):
            at[device] += 1


def ringed(programs, random):
    """The devices that come back to themselves, whoever passed first."""
    _, now = at_random(programs, random)
    found = []
    for device, step in enumerate(now):
        seen = 0
        while step and step[1] != device and seen <= len(programs):
            step, seen = now[step[1]], seen + 1
        found += [device] if step and step[1] == device else []
    return found


@pytest.mark.parametrize("case", CASES[::3], ids=lambda case: case.words)
def test_the_order_of_passing_does_not_matter(case):
    programs = _programs(case)
    for seed in range(3):
        assert at_random(programs, Random(seed))[0] == run(programs)[0]
        assert ringed(programs, Random(seed)) == in_rings(programs)


def test_any_order_and_a_set_are_as_right():
    assert not open_parts("find_deadlock", find_deadlock=lambda programs: set(ringed(programs, Random(1))))
    assert not open_parts("find_deadlock", find_deadlock=lambda programs: ringed(programs, Random(1))[::-1])


@pytest.mark.parametrize("answer", [[], [0], [0, 1]])
def test_no_constant_answer_earns_anything(answer):
    assert len(open_parts("find_deadlock", find_deadlock=lambda programs: answer)) == 2


def test_cases_meet_rings_bystanders_and_waits_for_who_is_through():
    for cases in (EXERCISE.visible, CASES[len(EXERCISE.visible) :]):
        programs = [_programs(case) for case in cases if case.part == "which devices"]
        stuck = [[r for r, k in enumerate(run(rows)[0]) if k < len(rows[r])] for rows in programs]
        rings = list(map(in_rings, programs))
        assert any(ring and set(ring) < set(left) for ring, left in zip(rings, stuck, strict=True))
        assert any(not ring and left for ring, left in zip(rings, stuck, strict=True))
        assert any(len(ring) > 2 for ring in rings)


@pytest.mark.parametrize("p", [3, 4, 6])
def test_what_the_exercise_says_of_1f1b(p):
    """Neighbours wait for each other, the others behind them; a send that returns at once helps."""
    programs = _of_schedule("1f1b", p, 2 * p)
    at, _ = run(programs)
    assert in_rings(programs) == [p - 2, p - 1]
    assert all(k < len(row) for row, k in zip(programs, at, strict=True))
    assert {programs[r][at[r]][0] for r in (p - 2, p - 1)} == {"send"}
    assert run(programs, Rules(blocking=False))[0] == list(map(len, programs))


def test_where_all_receive_first_no_kind_of_send_helps():
    programs = _read("1?B0 1!F0 | 0?F0 0!B0")
    assert in_rings(programs) == in_rings(programs, Rules(blocking=False)) == [0, 1]


@pytest.mark.parametrize("data", [3, "0", {"a": 1}, None])
def test_what_is_no_list_gets_a_sentence(data):
    assert "should return a list of devices" in EXERCISE.verdict(EXERCISE.visible[0], {"data": data}).message


def test_the_references_refuse_while_a_learners_function_runs():
    programs = _read("1!F0 | 0?F0")
    assert_reserved(lambda: run(programs), lambda: in_rings(programs))
