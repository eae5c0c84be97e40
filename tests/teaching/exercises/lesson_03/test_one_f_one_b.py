"""What the check of 1F1B accepts."""

import pytest

from pipelab.schedules import Action, Schedule
from tests.teaching.exercises.trying import open_parts


def rule(p, m):
    """1F1B as a choice in each slot, as Actions, from a generator."""
    done = {}
    rows = [[] for _ in range(p)]
    while len(done) < 2 * p * m:
        now = []
        for r, row in enumerate(rows):
            f, b = (sum(action.op == op for action in row) for op in "FB")
            if b < f and (r == p - 1 or Action(r + 1, "B", b) in done):
                now.append(Action(r, "B", b))
            elif f < m and f - b < p - r and (r == 0 or Action(r - 1, "F", f) in done):
                now.append(Action(r, "F", f))
        for action in now:
            rows[action.stage].append(action)
            done[action] = True
    yield from rows


@pytest.mark.parametrize(
    "form",
    [
        rule,
        # Lesson 2's test hands in these two forms each time.
        pytest.param(lambda p, m: Schedule.from_rows(rule(p, m)), marks=pytest.mark.slow, id="schedule"),
        pytest.param(
            lambda p, m: [" ".join(map(str, r)).split() for r in rule(p, m)], marks=pytest.mark.slow, id="text"
        ),
    ],
)
def test_other_ways_to_write_1f1b_are_as_right(form):
    assert not open_parts("one_f_one_b", one_f_one_b=form)
