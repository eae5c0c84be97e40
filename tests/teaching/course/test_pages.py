"""Gates on the course's pages: every rule of a lesson and an exercise that a program can check."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from pipelab.teaching.course.beside.about import read_about
from pipelab.teaching.course.build import FOLDERS, exercises_page, lesson_page
from pipelab.teaching.course.execute import kept
from pipelab.teaching.course.rules.exercises import exercise_faults
from pipelab.teaching.course.rules.lesson import lesson_faults
from pipelab.teaching.course.source import read_course
from pipelab.teaching.exercises import exercise

ROOT = Path(__file__).parents[3]
LESSONS = read_course(ROOT / "course")
ABOUT = read_about(ROOT / "course")
NAMES = [lesson.name for lesson in LESSONS]
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=NAMES)


def committed(lesson, page):
    return nbformat.read(ROOT / FOLDERS[page] / f"{lesson.name}.ipynb", as_version=4)


def built(lesson, page):
    return lesson_page(lesson, LESSONS) if page == "lesson" else exercises_page(lesson, solved=page == "solutions")


def codes(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


# ---- pages and their sources --------------------------------------------------------------------------------------


@each_lesson
@pytest.mark.parametrize("page", FOLDERS)
def test_a_committed_page_is_what_its_source_builds(lesson, page):
    path, fresh = ROOT / FOLDERS[page] / f"{lesson.name}.ipynb", built(lesson, page)
    filled = fresh if page == "exercises" else kept(fresh, path)
    assert filled is not None, "its source has changed since it was built: make course"
    assert nbformat.writes(filled, version=4, indent=1) + "\n" == path.read_text(), "make course"


def test_there_are_no_pages_without_a_source():
    for folder in FOLDERS.values():
        assert sorted(path.stem for path in (ROOT / folder).glob("*.ipynb")) == NAMES


@each_lesson
@pytest.mark.parametrize("page", ["lesson", "solutions"])
def test_lessons_and_solutions_are_executed_top_to_bottom_without_an_error(lesson, page):
    cells = codes(committed(lesson, page))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"], "warnings on the page"


@each_lesson
def test_exercises_are_clean(lesson):
    assert all(cell.execution_count is None and not cell.outputs for cell in codes(committed(lesson, "exercises")))


@each_lesson
@pytest.mark.parametrize("page", FOLDERS)
def test_a_notebook_opens_without_asking(lesson, page):
    notebook = committed(lesson, page)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info.name == "python"
    assert notebook.nbformat_minor >= 5
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_titles_differ_so_that_open_tabs_can_be_told_apart():
    titles = [committed(lesson, page).cells[0].source.splitlines()[0] for lesson in LESSONS for page in FOLDERS]
    assert len(set(titles)) == len(titles)


# ---- a lesson -----------------------------------------------------------------------------------------------------


@each_lesson
def test_a_lesson_keeps_all_rules_of_a_page(lesson):
    """The same that ``pipelab course check`` says."""
    assert [str(fault) for fault in lesson_faults(lesson, LESSONS, ABOUT)] == []


def _folded(cell):
    return (cell.options or {}).get("jupyter", {}).get("source_hidden", False)


@each_lesson
@pytest.mark.parametrize("page", FOLDERS)
def test_a_folded_cell_is_folded_on_the_page(lesson, page):
    folded = {cell.text.strip() for cell in lesson.cells if _folded(cell)}
    for cell in codes(built(lesson, page)):
        assert cell.metadata.get("jupyter", {}).get("source_hidden", False) == (cell.source in folded)


@each_lesson
@pytest.mark.parametrize("page", ["lesson", "solutions"])
def test_every_picture_has_words_beside_it(lesson, page):
    for cell in codes(committed(lesson, page)):
        for output in cell.outputs:
            data = output.get("data", {})
            shown = data.get("text/html", "")
            if "image/png" in data or "<img" in shown:
                (alt,) = re.findall(r'<img alt="([^"]*)"', shown)
                assert len(alt) > 40, alt


# ---- exercises ----------------------------------------------------------------------------------------------------

EACH = [(lesson, name) for lesson in LESSONS for name in lesson.exercises]
each_exercise = pytest.mark.parametrize("lesson, name", EACH, ids=[name for _, name in EACH])


@each_lesson
def test_exercises_keep_all_rules(lesson):
    """Without running them: test_exercises.py does."""
    assert [str(fault) for fault in exercise_faults(lesson, ROOT)] == []


@each_exercise
def test_cells_of_an_exercise_carry_what_nbgrader_reads(lesson, name):
    cells = [
        c for c in exercises_page(lesson, solved=False).cells if c.metadata.get("pipelab", {}).get("exercise") == name
    ]
    graded = [c.metadata.nbgrader for c in cells if c.metadata.get("nbgrader", {}).get("grade")]
    assert [(g.points, g.locked, g.solution) for g in graded] == [(exercise(name).points, True, False)]
    answers = [c.metadata.nbgrader for c in cells if c.metadata.get("nbgrader", {}).get("solution")]
    assert answers
    assert not any(g.grade or g.locked for g in answers)


def test_grade_ids_are_unique_on_a_page():
    for lesson in LESSONS:
        ids = [
            c.metadata.nbgrader.grade_id for c in exercises_page(lesson, solved=False).cells if "nbgrader" in c.metadata
        ]
        assert len(set(ids)) == len(ids)
