"""What the check of choices accepts, and that its truth is the simulator's."""

from random import Random

import pytest

from pipelab.schedules import build_schedule
from pipelab.simulation import simulate
from pipelab.teaching.exercises import exercise
from pipelab.teaching.exercises.lesson_03.what_fits import _drawn_choices, least
from tests.teaching.exercises.trying import assert_reserved, open_parts


def test_the_reference_of_what_fits_agrees_with_the_simulator():
    for case in _drawn_choices(Random(7))[:8]:
        batch, p, size, limit, idle = (case[key] for key in ("batch", "p", "bytes", "limit", "idle"))
        found = ("none", 0)
        for name in ("1f1b", "gpipe"):
            for m in range(batch, 0, -1):
                if batch % m == 0:
                    timeline = simulate(build_schedule(name, devices=p, microbatches=m), batch=batch)
                    held = max(timeline.peak_sequences) * size
                    if held <= limit + 1e-3 and timeline.bubble_fraction <= idle + 1e-12:
                        found = (name, m)
        assert least(batch, p, size, limit, idle) == found


@pytest.mark.parametrize("form", [lambda name, m: [name.upper(), float(m)], lambda name, m: (name, m or None)])
def test_choices_may_come_in_other_forms(form):
    cases = {case.words: case for case in exercise("what_fits").cases(3)}
    keys = ("batch", "p", "bytes", "limit", "idle")
    truth = {tuple(case[key] for key in keys): least(*(case[key] for key in keys)) for case in cases.values()}
    assert not open_parts("what_fits", choose=lambda *given: form(*truth[given]))


def test_the_reference_refuses_while_a_learners_function_runs():
    assert_reserved(lambda: least(8, 2, 1, 8, 1.0))
