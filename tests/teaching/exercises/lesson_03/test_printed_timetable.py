"""What the checks of lesson 3 accept, and that their truth is the simulator's."""

from itertools import pairwise, product
from random import Random

import numpy as np
import pytest

from pipelab.errors import PipelabError
from pipelab.schedules import Action, Schedule, build_schedule, check_schedule
from pipelab.schedules.reserved import reserve
from pipelab.simulation import simulate
from pipelab.teaching.exercises import exercise
from pipelab.teaching.exercises.lesson_03 import with_warmups
from pipelab.teaching.exercises.lesson_03_faults import FAULTS, PUBLISHED, _drawn_faults, printed_faults
from pipelab.teaching.exercises.lesson_03_memory import _drawn_choices, least
from pipelab.teaching.grading.asking import ask_case
from pipelab.teaching.grading.check import try_parts


def open_parts(name, seed=3, **answers):
    return {part for part, finding in try_parts(exercise(name), answers, seed).items() if finding is not None}


def test_warmups_of_the_syllabus():
    slots = {d: simulate(with_warmups([max(3 - r + d, 0) for r in range(4)], 8)).makespan for d in (-3, -1, 0, 1)}
    assert slots == {-3: 64, -1: 36, 0: 22, 1: 22}
    assert simulate(with_warmups([4, 3, 2, 1], 8)).peak_microbatches == (5, 4, 3, 2)
    assert simulate(with_warmups([3, 3, 3, 3], 16)).makespan == 110


def test_the_lessons_sentence_on_wait_cycles():
    """An order of this shape gets stuck when a device has a deeper warm-up than the one before it, and only then."""
    for m, warmups in product((3, 5), product(range(4), repeat=3)):
        depths = [min(w, m - 1) for w in warmups]  # m and m - 1 are the same order
        deeper = any(before < behind for before, behind in pairwise(depths))
        assert bool(check_schedule(with_warmups(warmups, m))) == deeper


def test_the_lessons_formula_for_a_warmup_that_is_too_shallow():
    for p, m, d in product((2, 3, 4, 6), (6, 8, 13), (-3, -2, -1, 0, 1)):
        timeline = simulate(with_warmups([max(p - 1 - r + d, 0) for r in range(p)], m))
        pace = max(2, *(2 * (p - r) / n for r, n in enumerate(timeline.peak_microbatches)))
        assert timeline.makespan == 2 * p + (m - 1) * pace


def test_a_warmup_of_m_or_m_minus_1_is_one_and_the_same_order():
    assert not open_parts("warmup", warmup=lambda r, p, m: min(p - 1 - r, m - 1))
    assert not open_parts("warmup", warmup=lambda r, p, m: np.int64(min(p - 1 - r, m)))


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


def test_faults_may_come_as_a_list_with_numpy_numbers():
    truth = printed_faults

    def faults(rows):
        found = [list(triple) for triple in oracle[str(rows)]]
        return [(np.int64(d), place if isinstance(place, str) else np.int64(place), code) for d, place, code in found]

    cases = exercise("printed_timetable").cases(3)
    oracle = {str(case["_rows"]): list(truth(case["_rows"])) for case in cases}
    assert not open_parts("printed_timetable", faults=faults)


def test_planted_tables_hold_what_their_part_asks_for_and_nothing_else():
    for seed in range(5):
        for case in _drawn_faults(Random(seed)):
            codes = {code for *_, code in printed_faults(case["_rows"])}
            assert codes <= set(FAULTS)
            assert not codes or case.part in codes


def test_the_published_timetable_has_these_faults():
    found = set(printed_faults(PUBLISHED))
    assert {t for d, t, code in found if code == "too-early" and d == 1} == {5, 6, 7, 8}
    assert {t for d, t, code in found if code == "no-input" and d == 3} == {5, 6, 7}
    assert {t for d, t, code in found if code == "missing"} == {"3F1", "3F2", "3F3"}
    assert len(found) == 10


def test_the_checker_answers_elsewhere_while_a_learners_function_runs():
    """check_schedule refuses in that one exercise; others may let a learner's function check what it drew."""
    with reserve("some exercise"):
        assert check_schedule(Schedule.from_csv("0F0,0B0")) == []
    case = exercise("printed_timetable").visible[0]
    answer = ask_case(exercise("printed_timetable"), {"faults": lambda rows: check_schedule(None)}, case)
    assert "check_schedule does not answer here" in answer["refused"]


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


def test_references_refuse_while_a_learners_function_runs():
    with reserve("this exercise"):
        for fetch in (
            lambda: with_warmups([1, 0], 2),
            lambda: printed_faults(PUBLISHED),
            lambda: least(8, 2, 1, 8, 1.0),
        ):
            with pytest.raises(PipelabError, match="does not answer here"):
                fetch()
