"""The index page of a learner's folder: what it says before and after a grade, and that it takes no one's place."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from pipelab.teaching.course.index import write_index
from pipelab.teaching.course.source import read_course
from pipelab.teaching.course.work import fill_work
from pipelab.teaching.exercises import exercise
from pipelab.teaching.grading.grader import find_notebooks

ROOT = Path(__file__).parents[3]
LESSONS = read_course(ROOT / "course")
ALL = {name: exercise(name).points for lesson in LESSONS for name in lesson.exercises}


def shown(work):
    (cell,) = nbformat.read(work / "index.ipynb", 4).cells
    assert cell.cell_type == "markdown"
    return cell.source


def row(work, number):
    (line,) = [line for line in shown(work).splitlines() if line.startswith(f"| {number} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def following(work):
    (line,) = [line for line in shown(work).splitlines() if line.startswith("**Next:**")]
    return line


def test_before_a_grade_it_lists_the_lessons_and_says_how_to_get_one(tmp_path):
    assert write_index(tmp_path, LESSONS)
    for lesson in LESSONS:
        title, can, exercises, minutes, points, done = row(tmp_path, lesson.number)
        assert lesson.title in title
        assert can
        announced = [cell.options["minutes"] for cell in lesson.cells if cell.role == "lead"]
        assert exercises.startswith(f"[{len(announced)} exercise")
        assert minutes == f"{lesson.minutes + sum(announced)} ({lesson.minutes} + {sum(announced)})"
        assert points == f"0 of {sum(ALL[name] for name in lesson.exercises)}"
        assert done == f"0 of {len(announced)}"
    assert "Nothing has been graded yet. Run `make grade`" in shown(tmp_path)
    assert following(tmp_path).startswith("**Next:** [lesson 0 ")
    assert "write this page, so your changes to it are lost." in shown(tmp_path)
    nbformat.validate(nbformat.read(tmp_path / "index.ipynb", 4))


def test_its_links_lead_somewhere_in_work_and_work_leads_back(tmp_path):
    fill_work(ROOT, tmp_path)
    write_index(tmp_path, LESSONS, ALL | {"gpipe": 0})
    links = re.findall(r"\]\(([^)]+)\)", shown(tmp_path))
    assert len(links) > 2 * len(LESSONS)
    assert {"course.svg", "glossary.ipynb"} < set(links)
    assert all((tmp_path / link).exists() for link in links)
    (words,) = nbformat.read(tmp_path / "glossary.ipynb", 4).cells
    cells = re.findall(r"\]\((notebooks/[^)]+)#cell-id=(\w+)\)", words.source)
    assert len(cells) > 50
    for path, cell in cells:
        assert cell in {one.id for one in nbformat.read(tmp_path / path, 4).cells}, path
    for page in [*tmp_path.glob("notebooks/*.ipynb"), *tmp_path.glob("exercises/*.ipynb")]:
        assert "(../index.ipynb)" in nbformat.read(page, 4).cells[0].source


def test_a_grade_shows_points_and_the_next_step(tmp_path):
    write_index(tmp_path, LESSONS, {"utilisation": 2, "must_fit": 3, "cut_graph": 1, "naive_table": 0})
    assert row(tmp_path, 0)[4:] == ["2 of 2", "**all**"]
    assert row(tmp_path, 1)[4:] == ["3 of 3", "**all**"]
    assert row(tmp_path, "1b")[4:] == ["1 of 6", "0 of 2"]
    assert "last `make grade`" in shown(tmp_path)
    assert following(tmp_path) == (
        "**Next:** *Cut the graph*, one of the [exercises of lesson 1b](exercises/01b_by_hand_exercises.ipynb); "
        "1 of 3 points so far."
    )
    write_index(tmp_path, LESSONS, {"cut_graph": 3, "naive_table": 3})
    assert row(tmp_path, 0)[4:] == ["2 of 2", "**all**"], "what was graded before is kept"
    assert following(tmp_path).startswith("**Next:** [lesson 2 ")
    write_index(tmp_path, LESSONS, ALL)
    assert following(tmp_path) == "**Next:** nothing. You have all the points."
    assert f"{sum(ALL.values())} of {sum(ALL.values())}" in shown(tmp_path)


@pytest.mark.parametrize("text", ["not json", "[]", "{}", '{"metadata": {"pipelab": {"kind": "exercises"}}}'])
def test_what_is_no_index_stays(tmp_path, text):
    (tmp_path / "index.ipynb").write_text(text)
    assert not write_index(tmp_path, LESSONS)
    assert (tmp_path / "index.ipynb").read_text() == text


def test_a_file_of_the_glossarys_name_stays(tmp_path):
    (tmp_path / "glossary.ipynb").write_text("mine")
    assert write_index(tmp_path, LESSONS)
    assert (tmp_path / "glossary.ipynb").read_text() == "mine"


def test_it_is_not_graded(tmp_path):
    fill_work(ROOT, tmp_path)
    write_index(tmp_path, LESSONS)
    found = find_notebooks([tmp_path], [lesson.name for lesson in LESSONS])
    assert [one.path.parent.name for one in found] == ["exercises"] * len(LESSONS)
