"""What the check of the printed timetable accepts, and what its tables hold."""

from random import Random

import numpy as np

from pipelab.schedules import Schedule, check_schedule
from pipelab.schedules.reserved import reserve
from pipelab.teaching.exercises import exercise
from pipelab.teaching.exercises.lesson_03.printed_timetable import FAULTS, PUBLISHED, _drawn_faults, printed_faults
from pipelab.teaching.grading.asking import ask_case
from tests.teaching.exercises.trying import assert_reserved, open_parts


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


def test_the_reference_refuses_while_a_learners_function_runs():
    assert_reserved(lambda: printed_faults(PUBLISHED))
