"""What ``pipelab course check`` runs of exercises. The course's own are gates in tests/teaching/course."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pipelab.teaching.course.source import read_lesson
from pipelab.teaching.grading.trying import answer_faults, refusals
from tests.teaching.exercises.wrong import Wrong

ROOT = Path(__file__).parents[3]
LESSON = read_lesson(ROOT / "course" / "00_start_here.py")
RIGHT = "\n".join(cell.text for cell in LESSON.cells if cell.role == "answer")


def test_an_exercise_that_keeps_its_promises_has_no_faults():
    assert list(answer_faults(LESSON, ROOT)) == []


def test_a_solution_that_is_refused_and_a_stub_that_earns_are_told():
    def with_answer(text):
        cells = [dataclasses.replace(cell, text=text) if cell.role == "answer" else cell for cell in LESSON.cells]
        return dataclasses.replace(LESSON, cells=tuple(cells))

    wrong = RIGHT.replace("return sum", "return 2 * sum")
    assert wrong != RIGHT
    assert any("its solution is refused in" in str(fault) for fault in answer_faults(with_answer(wrong), ROOT))
    bare = RIGHT.replace("### BEGIN SOLUTION", "").replace("### END SOLUTION", "")
    assert any("its stub earns" in str(fault) for fault in answer_faults(with_answer(bare), ROOT))


def test_a_wrong_answer_that_earns_points_or_hears_something_else_is_told():
    earned = list(refusals(Wrong("utilisation", RIGHT, "idle"), LESSON))
    assert any("earns" in one for one in earned)
    told = list(refusals(Wrong("utilisation", "def utilisation(rows):\n    return 0.0", "of the moon"), LESSON))
    assert any("is not told so; the check says: " in one for one in told)
