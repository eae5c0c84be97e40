"""An instructor's page of a lesson: what it takes from the source, from the exercises and from the wrong answers."""

from __future__ import annotations

from pathlib import Path

from pipelab.teaching.course.beside.about import read_about
from pipelab.teaching.course.pages.summaries import questions, summary_page
from pipelab.teaching.course.pages.wrong import told, wrong_answers
from pipelab.teaching.course.source import read_course
from tests.teaching.course.small import small_course

ROOT = Path(__file__).parents[4]


def test_it_has_goals_minutes_questions_the_moment_and_what_is_said_by_hand(tmp_path):
    course = small_course(tmp_path)
    (lesson,) = lessons = read_course(course)
    page = summary_page(lesson, lessons, read_about(course).pages["00_small"], tmp_path)
    assert page.startswith("# 0 · Small: for the instructor\n")
    for part in (
        "- one\n- two\n- three",
        "10 minutes.",
        "There are three.",
        "Ask first. Then count",
        "- How many apples?",
    ):
        assert part in page
    assert "## Exercises" not in page


def test_its_exercises_come_with_points_and_with_what_checks_say_to_wrong_answers():
    lessons = read_course(ROOT / "course")
    lesson = next(one for one in lessons if one.name == "02b_gradient_and_memory")
    page = summary_page(lesson, lessons, read_about(ROOT / "course").pages[lesson.name], ROOT)
    assert "| Two bubbles | medium | 15 | 3 (fraction 1, ratio 1, least m 1) |" in page
    assert "- That is in per cent; the answer is a plain number." in page


def test_every_lesson_asks_something_and_a_figure_that_the_page_puts_in_is_left_open():
    lessons = read_course(ROOT / "course")
    asked = {lesson.number: list(questions(lesson)) for lesson in lessons}
    assert all(found and all(found) for found in asked.values())
    assert "1F1B idles … % of the time here. And round-robin?" in asked["4"]


def test_of_a_wrong_answer_the_whole_sentence_is_told_or_its_phrase():
    wrong = {one.says: told(one) for one in wrong_answers(ROOT) if one.exercise == "bubbles"}
    assert wrong["adds R to the idle time"] == "That adds R to the idle time."
    assert wrong["bubble ratio, idle over busy"] == "… bubble ratio, idle over busy …"


def test_where_there_are_no_tests_there_are_no_wrong_answers(tmp_path):
    assert wrong_answers(tmp_path) == ()
