"""What the check of ZB-H1 accepts."""

from functools import cache

import pytest

from pipelab.schedules import build_schedule
from pipelab.simulation import simulate
from pipelab.teaching.exercises.lesson_07.halves import of_halves
from pipelab.teaching.exercises.lesson_07.write_zb_h1 import EXERCISE

CASES = [case for case in EXERCISE.cases(3) if case.part != "gradients"]  # that part trains, which takes seconds


@cache
def right(p, m):
    return [[str(a) for a in row] for row in build_schedule("zb-h1", p, m).programs]


def said(rows):
    """The messages about ``rows(p, m)``."""
    tables = [{"data": rows(case["p"], case["m"])} for case in CASES]
    found = [EXERCISE.verdict(case, table) for case, table in zip(CASES, tables, strict=True)]
    return [finding.message for finding in found if finding is not None]


def last_first(row):
    """With the W's at the end in the other order."""
    k = max(k for k, cell in enumerate(row) if "W" not in cell) + 1
    return [*row[:k], *reversed(row[k:])]


def whole(row):
    """With B instead of I and W on device 0, where a W follows its I at once."""
    return [cell.replace("I", "B") for cell in row if "W" not in cell] if row[0] == "0F0" else row


@pytest.mark.parametrize("form", [last_first, whole])
def test_other_tables_that_keep_to_the_limits_are_as_right(form):
    assert [form(row) for row in right(4, 8)] != right(4, 8)
    assert not said(lambda p, m: [form(row) for row in right(p, m)])


@pytest.mark.parametrize("p", [1, 2, 3, 5, 8])
def test_the_makespans_that_the_exercise_promises(p):
    for m in (1, 2, 3, 5, 8, 13):
        span = simulate(build_schedule("zb-h1", p, m), of_halves()).makespan
        assert span == (3 * m + p - 1 if m >= p else 2 * m + 2 * p - 1)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (lambda p, m: [[f"{r}F{i}" for i in range(m)] for r in range(p)], "has no backwards"),
        (lambda p, m: right(p, m)[::-1], "stage r belongs on device r"),
        (lambda p, m: right(p, max(m - 1, 1)), "micro-batches instead of"),
        (lambda p, m: right(p, m + 1), "but the micro-batches are"),
    ],
    ids=["no backwards", "upside down", "one too few", "one too many"],
)
def test_another_table_is_refused(rows, says):
    assert any(says in message for message in said(rows))
