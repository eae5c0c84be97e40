"""What the check of GPipe accepts, and what it says."""

from pipelab.schedules import Action, Schedule
from tests.teaching.exercises.trying import messages, open_parts


def test_rows_in_other_forms_are_as_right():
    def gpipe(p, m):
        return tuple(tuple(Action(r, op, i) for op in "FB" for i in range(m)) for r in range(p))

    def generator(p, m):
        for r in range(p):
            yield [f"{r}F{i}" for i in range(m)] + [f"{r}B{i}" for i in range(m)]

    def schedule(p, m):
        return Schedule.from_rows(generator(p, m))

    def timed(p, m):  # with its idle slots
        return [["."] * r + row for r, row in enumerate(generator(p, m))]

    for form in (gpipe, generator, schedule, timed):
        assert open_parts("gpipe", gpipe=form) == set()


def test_backwards_may_go_down_through_the_microbatches():
    def gpipe(p, m):
        return [[f"{r}F{i}" for i in range(m)] + [f"{r}B{i}" for i in reversed(range(m))] for r in range(p)]

    assert open_parts("gpipe", gpipe=gpipe) == set()


def test_a_right_table_for_a_multiple_of_p_alone_earns_a_part():
    def gpipe(p, m):
        assert m >= p
        return [[f"{r}{op}{i}" for op in "FB" for i in range(m)] for r in range(p)]

    assert open_parts("gpipe", gpipe=gpipe) == {"m < p"}


def test_devices_that_turn_round_differently_cost_time_and_that_is_said():
    def gpipe(p, m):
        rows = [[f"{r}{op}{i}" for op in "FB" for i in range(m)] for r in range(p)]
        rows[-1] = rows[-1][:m] + rows[-1][m:][::-1]
        return rows

    first = messages("gpipe", gpipe=gpipe)[0]
    assert "device 2 runs its backwards in the order 1, 0, device 0 in the order 0, 1" in first
    assert "GPipe takes 8" in first
