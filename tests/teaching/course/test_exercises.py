"""Gates on exercises that need no kernel: solutions pass, wrong answers are refused with the message meant for them."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path

import pytest

from pipelab.teaching.course.build import stub
from pipelab.teaching.course.source import read_course
from pipelab.teaching.exercises import exercises
from pipelab.teaching.grading.check import try_parts
from tests.teaching.exercises.wrong import wrong_answers

ROOT = Path(__file__).parents[3]


@functools.cache
def lessons():
    return read_course(ROOT / "course")


def run(name, text):
    """What an exercise's cell leaves behind the setup of its page, as the answers that a check is given."""
    exercise = exercises()[name]
    lesson = next(lesson for lesson in lessons() if lesson.name == exercise.lesson)
    space = {"__name__": "__main__"}
    for cell in lesson.page("exercises"):
        if cell.role == "setup":
            exec(cell.text, space)
    exec(text, space)
    return {answer: space[answer] for answer in exercise.answers if answer in space}


def solution(name):
    lesson = next(lesson for lesson in lessons() if name in lesson.exercises)
    return "\n\n".join(cell.text for cell in lesson.cells_of(name, "answer"))


def test_every_exercise_of_the_course_is_defined_and_the_other_way_round():
    written = {name: lesson.name for lesson in lessons() for name in lesson.exercises}
    assert written == {name: exercise.lesson for name, exercise in exercises().items()}


@pytest.mark.parametrize("name", exercises())
def test_the_solution_earns_all_points_in_cases_of_a_grade(name):
    found = try_parts(exercises()[name], run(name, solution(name)), seed=1)
    assert {part: finding for part, finding in found.items() if finding} == {}


@pytest.mark.parametrize("name", exercises())
def test_the_stub_earns_nothing_and_says_that_it_is_one(name):
    found = try_parts(exercises()[name], run(name, stub(solution(name), name)), seed=1)
    for finding in found.values():
        assert "not written yet" in finding.message


@pytest.mark.parametrize("name", exercises())
def test_every_exercise_keeps_four_wrong_answers(name):
    assert Counter(wrong.exercise for wrong in wrong_answers())[name] >= 4


@pytest.mark.parametrize("wrong", wrong_answers(), ids=lambda wrong: f"{wrong.exercise}: {wrong.says}")
def test_a_wrong_answer_is_refused_with_the_message_meant_for_it(wrong):
    exercise = exercises()[wrong.exercise]
    found = try_parts(exercise, run(wrong.exercise, wrong.text))  # a grade tries these visible cases too, and first
    refused = {part: finding for part, finding in found.items() if finding is not None}
    assert set(wrong.open or exercise.parts) <= set(refused)
    messages = [finding.message for finding in refused.values()]
    assert any(wrong.says in message for message in messages), messages
    for finding in refused.values():
        if finding.picture is not None:
            assert finding.picture().alt
