"""What the check of 2BW's table accepts."""

import pytest

from pipelab.errors import ScheduleError
from pipelab.schedules import Schedule, build_schedule
from pipelab.schedules.updates import ages, over, versions
from pipelab.teaching.exercises.definition import Case
from pipelab.teaching.exercises.lesson_06.stash import _warmed, lives
from pipelab.teaching.exercises.lesson_06.two_bw import EXERCISE, _trained, right_rows
from tests.teaching.exercises.trying import assert_reserved, open_parts


def by_the_rule(p, m, batches):
    """A backward as soon as it can, and at most p - r in flight."""
    for r in range(p):
        row, f, b = [], 0, 0
        while b < m * batches:
            if f < m * batches and f - b < p - r:
                row.append(f"{r}F{f}")
                f += 1
            else:
                row.append(f"{r}B{b}")
                b += 1
                if b % m == 0:
                    row.append(f"{r}U{b - 1}")
        yield row


def test_the_table_may_be_written_as_a_rule():
    assert not open_parts("two_bw", two_bw=by_the_rule)


def test_the_reference_is_the_engines_table():
    assert tuple(map(tuple, right_rows(3, 4, 2))) == over(build_schedule("2bw", 3, 4), 2).programs


def test_what_trains_is_the_rows_that_were_handed_in():
    """Not the catalogue's own table: one with an update after each backward is refused."""
    case = Case("training", {"_p": 2, "_m": 2, "_batches": 3, "_words": "p = 2, m = 2"})
    right, often = (
        [Schedule.from_rows(table) for table in tables]
        for tables in (
            [by_the_rule(2, 2, 1), by_the_rule(2, 2, 2)],
            [_warmed([1, 0], 2), _warmed([1, 0], 4)],
        )
    )
    assert _trained(case, right) is None
    with pytest.raises(ScheduleError, match="leave 0U0 out"):
        _trained(case, often)


@pytest.mark.parametrize("p", [4, 5])
def test_below_p_minus_1_a_forward_begins_before_its_version_is_made(p):
    for m, there in ((p - 1, True), (p - 2, False)):
        rows = _warmed([p - 1 - r for r in range(p)], 4 * m, m)
        made = {}
        for row in rows:
            count = 0
            for cell in row:
                count += "U" in cell
                made[cell] = count
        needed = {f"0F{i}": max(i // m - 1, 0) for i in range(4 * m)}
        assert all(made[cell] >= version for cell, version in needed.items()) == there
        if there:
            assert lives(rows, "2bw")[1] == [2] * p


def test_the_references_refuse_while_a_learners_function_runs():
    schedule = build_schedule("2bw", 2, 2)
    for reference in (versions, ages):
        assert_reserved(lambda reference=reference: reference(schedule))
    assert_reserved(lambda: over(schedule, 2), lambda: right_rows(2, 2, 1))
    assert EXERCISE.points == 4
