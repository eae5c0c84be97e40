"""The serial table and what its check accepts."""

import numpy as np
import pytest

from pipelab.schedules import Schedule, check_schedule
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.lesson_02.serial import serial_table
from tests.teaching.exercises.trying import assert_reserved, messages, open_parts


@pytest.mark.parametrize(("p", "m"), [(1, 1), (2, 5), (4, 4), (5, 3)])
def test_the_serial_table_overlaps_nothing(p, m):
    table = Schedule.from_rows(serial_table(p, m))
    assert check_schedule(table) == []
    run = simulate(table, Costs(forward=2, backward=3))
    assert run.makespan == m * p * 5
    assert run.utilisation == pytest.approx(1 / p)


def test_the_serial_run_may_be_drawn_as_a_timetable():
    def serial_rows(p, m):
        rows = [[None] * (2 * p * m) for _ in range(p)]
        for i in range(m):
            for r in range(p):
                rows[r][2 * p * i + r] = f"{r}F{i}"
                rows[r][2 * p * (i + 1) - 1 - r] = f"{r}B{i}"
        return rows

    def serial_makespan(p, m, forward, backward, latency):
        return np.float64(m * (p * (forward + backward) + 2 * (p - 1) * latency))

    assert open_parts("serial", serial_rows=serial_rows, serial_makespan=serial_makespan) == set()


def test_the_smallest_counterexample_names_device_time_and_what_is_under_way():
    def serial_rows(p, m):
        return [[f"{r}{op}{i}" for op in "FB" for i in range(m)] for r in range(p)]

    (message, _) = messages("serial", serial_rows=serial_rows)
    assert message.startswith("p = 2, m = 2: sound, but not serial: device 0 starts 0F1 at t = 1, but micro-batch 0")
    assert "takes 6 units of time, the serial run takes 8" in message


def test_the_reference_refuses_while_a_learners_function_runs():
    assert_reserved(lambda: serial_table(2, 2))
