"""Rules of exercises find an exercise that breaks them. The course's own are gates in test_pages.py."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pipelab.teaching.course.rules.exercises import exercise_faults, run_answer, solution
from pipelab.teaching.course.source import read_lesson

ROOT = Path(__file__).parents[4]
LESSON = read_lesson(ROOT / "course" / "00_start_here.py")


def changed(role, old, new):
    cells = [
        dataclasses.replace(cell, text=cell.text.replace(old, new)) if cell.role == role else cell
        for cell in LESSON.cells
    ]
    assert cells != list(LESSON.cells)
    return dataclasses.replace(LESSON, cells=tuple(cells))


@pytest.mark.parametrize(
    "role, old, new, says",
    [
        ("answer", " -> float", "", "utilisation has an argument or a result without a type"),
        ("answer", ">>> ", "", "utilisation has no example in its docstring"),
        ("answer", "def utilisation", "def other", "no answer cell defines utilisation"),
    ],
)
def test_a_stub_without_types_or_an_example_is_told_with_its_line(role, old, new, says):
    told = [str(fault) for fault in exercise_faults(changed(role, old, new), ROOT)]
    assert any(says in one for one in told), told
    assert all("00_start_here.py:2" in one for one in told)


def test_a_line_of_the_solution_in_a_hint_is_told():
    line = next(
        line.strip() for line in solution(LESSON, "utilisation").splitlines() if line.strip().startswith("return")
    )
    hints = [cell for cell in LESSON.cells if cell.role == "hint"]
    cells = [dataclasses.replace(cell, text=f"`{line}`") if cell is hints[-1] else cell for cell in LESSON.cells]
    told = [str(fault) for fault in exercise_faults(dataclasses.replace(LESSON, cells=tuple(cells)), ROOT)]
    assert any("the exercises show a line of a solution" in one for one in told), told


def test_without_its_wrong_answers_an_exercise_is_told(tmp_path):
    (tmp_path / "tests").mkdir()
    told = [str(fault) for fault in exercise_faults(LESSON, tmp_path)]
    assert any("0 wrong answers" in one and "keep at least 4" in one for one in told), told


def test_an_answer_runs_behind_the_setup_of_its_page():
    found = run_answer(LESSON, "utilisation", solution(LESSON, "utilisation"))
    assert list(found) == ["utilisation"]
    assert found["utilisation"]([["0F0", "."]]) == 0.5
