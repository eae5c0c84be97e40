"""Other forms of the naive table are right, and what is refused is refused with its reason."""

from __future__ import annotations

import pytest

from pipelab.schedules import Action, TimeTable
from tests.teaching.exercises.trying import findings


def times(devices, microbatches, forward, backward, latency=0):
    return microbatches * devices * (forward + backward) + (devices - 1) * 2 * latency


@pytest.mark.parametrize("idle", [".", "", None, "-"])
@pytest.mark.parametrize("ragged", [False, True])
def test_a_table_may_have_other_idle_cells_and_leave_out_those_at_the_end(idle, ragged):
    def table(p):
        rows = [[idle] * (2 * p) for _ in range(p)]
        for r in range(p):
            rows[r][r], rows[r][2 * p - 1 - r] = Action(r, "F", 0), f"{r}B0"
        return [row[: 2 * p - r] for r, row in enumerate(rows)] if ragged else rows

    assert findings("naive_table", table, times) == {}


def test_a_table_may_be_a_generator_or_a_timetable():
    def cells(p, r):
        return ["."] * r + [f"{r}F0"] + ["."] * (2 * (p - 1 - r)) + [f"{r}B0"] + ["."] * r

    def rows(p):
        for r in range(p):
            yield tuple(cells(p, r))

    def timed(p):
        lines = [f"device {r} | {' '.join(cells(p, r))}" for r in range(p)]
        return TimeTable.from_grid("\n".join(lines))

    assert findings("naive_table", rows, times) == {}
    assert findings("naive_table", timed, times) == {}


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (lambda p: [["."]] * p, "the table is empty"),
        (lambda p: [], "should return"),
        (lambda p: "0F0 0B0", "list of rows"),
        (lambda p: [[f"{r}F0"] for r in range(p)], "has no 0B0"),
        (lambda p: [[f"{r}G0"] for r in range(p)], "unknown op"),
        (lambda p: [["0F0", "0B0"]] * p, "is not on it"),
        (lambda p: [["."] * r + [f"{r}F0", f"{r}B0"] for r in range(p)], "reverse order of forwards"),
    ],
)
def test_other_tables_are_refused(table, says):
    assert says in findings("naive_table", table, times)["table"]


def test_the_catalogue_does_not_answer():
    from pipelab import build_schedule

    def table(p):
        return build_schedule("naive", devices=p, microbatches=1)

    assert "asks you to write it" in findings("naive_table", table, times)["table"]


def test_backward_before_forward_is_an_order():
    message = findings("naive_table", lambda p: [[f"{r}B0", f"{r}F0"] for r in range(p)], times)["table"]
    assert "a backward needs what its forward kept" in message
