"""What the check of the break-even latency accepts."""

import numpy as np

from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.lesson_04.break_even import latency_where_equal
from tests.teaching.exercises.trying import assert_reserved, open_parts


def test_break_even_by_regula_falsi_and_as_a_numpy_number():
    def break_even(plain, two, forward, backward):
        def lead(latency):
            costs = Costs(forward=forward, backward=backward, latency=latency)
            return simulate(plain, costs).makespan - simulate(two, costs).makespan

        return np.float64(latency_by_steps(lead, forward + backward))

    def latency_by_steps(lead, step):
        at = 0.0
        for _ in range(8):  # each round a tenth of the step
            while lead(at + step) > 0:
                at += step
            step /= 10
        return at

    assert not open_parts("break_even", break_even=break_even)


def test_the_reference_refuses_while_a_learners_function_runs():
    assert_reserved(lambda: latency_where_equal(None, None, 1, 1))
