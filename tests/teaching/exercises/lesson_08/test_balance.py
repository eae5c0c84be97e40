"""What the check of the balance score accepts, and that the score is the monitor's."""

import numpy as np
import pytest

from pipelab.schedules import build_schedule
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises import exercise
from pipelab.teaching.exercises.lesson_08.balance import busy_times, score
from tests.teaching.exercises.trying import assert_reserved, messages, open_parts


def test_the_score_of_a_timeline_is_mean_over_max_of_its_busy_times():
    timeline = simulate(build_schedule("1f1b", 3, 4), Costs([1, 2, 4], [2, 4, 8]))
    rows = [(span.device, span.start, span.end) for span in timeline.spans]
    assert busy_times(rows, 3) == pytest.approx(timeline.busy)
    assert score(busy_times(rows, 3)) == pytest.approx(7 / 12)


def test_a_score_may_come_from_numpy():
    def balance(rows, devices):
        table = np.array(rows)
        busy = np.bincount(table[:, 0].astype(int), table[:, 2] - table[:, 1], minlength=devices)
        return busy.mean(keepdims=True) / busy.max()

    assert not open_parts("balance", balance=balance)


def test_drawn_cases_have_idle_devices_in_their_part_only():
    for case in exercise("balance").cases(seed=5):
        working = {row[0] for row in case["_rows"]}
        assert (len(working) < case["_devices"]) == (case.part == "some devices idle")


def test_a_number_that_no_mistake_gives_is_shown_the_mean_and_the_largest():
    assert "Their mean is 2, and the largest is 2" in messages("balance", balance=lambda rows, p: -1)[0]


def test_references_refuse_while_a_learners_function_runs():
    assert_reserved(lambda: busy_times([(0, 0, 1)], 1), lambda: score([1]))
