"""What the check of interleaved 1F1B accepts."""

import numpy as np
import pytest

from pipelab.schedules import Action, Schedule
from tests.teaching.exercises.trying import open_parts


def listed(p, m, v):
    """The table by other means: Actions, from a generator, forwards numbered by division."""
    g = m // max(1, m // p)
    for r in range(p):
        w, row, done = min(2 * (p - 1 - r) + (v - 1) * g, m * v - 1), [], {"F": 0, "B": 0}
        while done["B"] < m * v:
            op = "F" if done["F"] < m * v and done["F"] - done["B"] <= w else "B"
            group, within = divmod(done[op], g * v)
            chunk, i = divmod(within, g)
            row.append(Action((chunk if op == "F" else v - 1 - chunk) * p + r, op, group * g + i))
            done[op] += 1
        yield row


def greedy(p, m, v):
    """Another table that does as well: half of the warm-up."""
    size, group = m * v, m // max(1, m // p)
    depths = [(p - 1 - r) + (v - 1) * group for r in range(p)]
    order = [(c, g + i) for g in range(0, m, group) for c in range(v) for i in range(group)]
    rows = []
    for r in range(p):
        w = min(depths[r], size)
        forwards = [f"{c * p + r}F{i}" for c, i in order]
        backwards = [f"{(v - 1 - c) * p + r}B{i}" for c, i in order]
        pairs = [action for pair in zip(forwards[w:], backwards, strict=False) for action in pair]
        rows.append(forwards[:w] + pairs + backwards[size - w :])
    return rows


def arrays(p, m, v):
    return [np.array(row) for row in greedy(p, m, v)]


@pytest.mark.parametrize(
    "form",
    [
        listed,
        pytest.param(lambda *a: Schedule.from_rows(listed(*a)), marks=pytest.mark.slow, id="schedule"),
        pytest.param(greedy, marks=pytest.mark.slow),  # arrays are the same table
        pytest.param(arrays, marks=pytest.mark.slow),
    ],
)
def test_tables_in_other_forms_and_others_that_do_as_well(form):
    assert not open_parts("interleaved", interleaved=form)
