"""Gates that need kernels: the grader on solutions and exercises, and plain nbval without our grader."""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell

from pipelab.teaching.course.source import read_course
from pipelab.teaching.exercises import exercise
from pipelab.teaching.grading.grader import grade
from tests.teaching.exercises.wrong import wrong_answers
from tests.teaching.grading.notebooks import page, role, save

ROOT = Path(__file__).parents[3]
KINDS = ("solutions", "exercises")
LESSONS = [lesson for lesson in read_course(ROOT / "course") if lesson.exercises]


@pytest.mark.parametrize(
    "lessons",
    [pytest.param(LESSONS, id="all", marks=pytest.mark.slow), pytest.param([LESSONS[0], LESSONS[-1]], id="two")],
)
def test_solutions_score_in_full_and_untouched_exercises_nothing(lessons):
    """Of all lessons in CI and test-full; make test asks each exercise's check, without a kernel."""
    faulthandler.cancel_dump_traceback_later()  # long on a busy machine; each exercise has a time limit of its own
    report = grade([ROOT / kind / f"{one.name}.ipynb" for kind in KINDS for one in lessons], progress=False)
    assert not report.warnings
    for notebook in report.notebooks:
        got = {e.exercise: (e.points, e.message) for e in notebook.exercises}
        assert notebook.possible == sum(exercise(name).points for name in got)
        if notebook.path.parent.name == "solutions":
            assert notebook.points == notebook.possible > 0, got
        else:
            assert notebook.points == 0, got
            assert {message for _, message in got.values()} == {"not attempted yet"}
    assert len(report.notebooks) == 2 * len(lessons)


def nbval(path, tmp_path):
    """(source's first line, passed) of each cell, by plain nbval."""
    out = tmp_path / "junit.xml"
    subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env"),
            *("--nbval-cell-timeout=120", f"--junitxml={out}", str(path)),
        ],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        check=False,
    )
    return [(case.get("name"), not len(case)) for case in ET.parse(out).iter("testcase")]


@pytest.mark.slow  # below, a page of wrong answers begins with its stubs
def test_under_plain_nbval_every_check_of_the_untouched_exercises_fails(tmp_path):
    found = nbval(ROOT / "exercises", tmp_path)
    pages = [page(lesson.name) for lesson in LESSONS]
    codes = [cell for notebook in pages for cell in notebook.cells if cell.cell_type == "code"]
    checks = [cell for notebook in pages for cell in role(notebook, "check")]
    assert [passed for _, passed in found] == [cell not in checks for cell in codes]


@pytest.mark.parametrize(
    "lesson",
    [pytest.param(one, id=one.name, marks=[] if one is LESSONS[-1] else [pytest.mark.slow]) for one in LESSONS],
)
def test_under_plain_nbval_every_check_of_wrong_answers_fails(lesson, tmp_path):
    """Each exercise's first two wrong answers, each followed by its check; nbval sees no cell but those fail."""
    notebook = page(lesson.name)
    first = [cell for cell in notebook.cells if cell.cell_type == "code" and cell in role(notebook, "setup")]
    cells, expected = list(first), [True] * len(first)
    for name in lesson.exercises:
        (check,) = role(notebook, "check", name)
        stubs = [cell.source for cell in role(notebook, "answer", name)]
        tries = ["\n\n".join(stubs), *[w.text for w in wrong_answers() if w.exercise == name][:2]]
        for text in tries:
            cells += [new_code_cell(text), new_code_cell(check.source)]
            expected += [True, False]
    notebook.cells = cells
    found = nbval(save(notebook, tmp_path / "wrong.ipynb"), tmp_path)
    assert [passed for _, passed in found] == expected, found
