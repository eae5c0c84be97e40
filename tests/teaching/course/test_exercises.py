"""Gates on exercises that need no kernel: solutions pass, wrong answers are refused with the message meant for them."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from pipelab.teaching.course.build import stub
from pipelab.teaching.course.rules.exercises import run_answer, solution
from pipelab.teaching.course.source import read_course
from pipelab.teaching.exercises import exercises
from pipelab.teaching.grading.check import try_parts
from pipelab.teaching.grading.trying import refusals
from tests.teaching.exercises.wrong import wrong_answers

ROOT = Path(__file__).parents[3]


@functools.cache
def lessons():
    return read_course(ROOT / "course")


def lesson_of(name):
    return next(lesson for lesson in lessons() if lesson.name == exercises()[name].lesson)


def solved(name):
    """What the solution's cell leaves behind."""
    return run_answer(lesson_of(name), name, solution(lesson_of(name), name))


def tried(name, text):
    return try_parts(exercises()[name], run_answer(lesson_of(name), name, text), seed=1)


def test_every_exercise_of_the_course_is_defined_and_the_other_way_round():
    written = {name: lesson.name for lesson in lessons() for name in lesson.exercises}
    assert written == {name: exercise.lesson for name, exercise in exercises().items()}


@pytest.mark.parametrize("name", exercises())
def test_the_solution_earns_all_points_in_cases_of_a_grade(name):
    found = tried(name, solution(lesson_of(name), name))
    assert {part: finding for part, finding in found.items() if finding} == {}


@pytest.mark.parametrize("name", exercises())
def test_the_stub_earns_nothing_and_says_that_it_is_one(name):
    found = tried(name, stub(solution(lesson_of(name), name), name))
    for finding in found.values():
        assert "not written yet" in finding.message


@pytest.mark.parametrize("wrong", wrong_answers(), ids=lambda wrong: f"{wrong.exercise}: {wrong.says}")
def test_a_wrong_answer_is_refused_with_the_message_meant_for_it(wrong):
    assert list(refusals(wrong, lesson_of(wrong.exercise))) == []
