from __future__ import annotations

import copy
import json

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from pipelab.teaching.grading.submission import UnreadableError, read_submission
from tests.teaching.grading.notebooks import RIGHT, answered, page, role, save, templates


def taken(notebook, tmp_path, name="00_start_here.ipynb"):
    return read_submission(save(notebook, tmp_path / name), templates())


def test_the_page_as_given_out_is_untouched(tmp_path):
    found = taken(page(), tmp_path)
    assert found.lesson.name == "00_start_here"
    assert found.untouched == {"utilisation"}
    assert found.setup == ()


def test_an_answer_is_the_cells_of_its_exercise_without_the_check(tmp_path):
    found = taken(answered(RIGHT), tmp_path)
    assert found.answers["utilisation"].cells == (RIGHT,)
    assert found.answers["utilisation"].notes == ()
    assert not found.untouched


def test_cells_that_a_learner_adds_belong_to_the_exercise_above_them(tmp_path):
    notebook = answered(RIGHT.replace("cell != ", "busy(cell) and cell != "))
    where = notebook.cells.index(role(notebook, "answer")[0])
    notebook.cells.insert(where + 1, new_code_cell("def busy(cell): return True"))
    assert len(taken(notebook, tmp_path).answers["utilisation"].cells) == 2


def test_a_helper_above_the_answer_belongs_to_it_as_well(tmp_path):
    notebook = answered(RIGHT)
    where = notebook.cells.index(role(notebook, "answer")[0])
    notebook.cells.insert(where, new_code_cell("def busy(cell): return True"))
    found = taken(notebook, tmp_path)
    assert len(found.answers["utilisation"].cells) == 2
    assert found.setup == ()


def test_a_byte_order_mark_and_half_a_surrogate_pair_do_no_harm(tmp_path):
    path = save(answered(RIGHT + "# CUT"), tmp_path / "a.ipynb")
    path.write_text("\ufeff" + path.read_text().replace("# CUT", "# \\ud800"), encoding="utf-8")
    (text,) = read_submission(path, templates()).answers["utilisation"].cells
    assert text.endswith("# ?")


def test_a_split_cell_is_put_together(tmp_path):
    notebook = answered("import math")
    where = notebook.cells.index(role(notebook, "answer")[0])
    half = copy.deepcopy(role(notebook, "answer")[0])
    half.source, half.id = RIGHT, "other"
    notebook.cells.insert(where + 1, half)
    assert taken(notebook, tmp_path).answers["utilisation"].cells == ("import math", RIGHT)


@pytest.mark.parametrize("place", [0, 1])
def test_of_a_stub_and_a_filled_copy_the_filled_one_counts(tmp_path, place):
    notebook = page()
    where = notebook.cells.index(role(notebook, "answer")[0])
    filled = copy.deepcopy(role(notebook, "answer")[0])
    filled.source, filled.id = RIGHT, "other"
    notebook.cells.insert(where + place, filled)
    found = taken(notebook, tmp_path).answers["utilisation"]
    assert found.cells == (RIGHT,)
    assert found.notes == ("an unfilled copy of its cell was left out",)


def test_an_answer_without_metadata_is_found_by_its_name(tmp_path):
    notebook = page()
    notebook.cells.append(new_code_cell(RIGHT))
    for cell in notebook.cells:
        cell.metadata = {}
    notebook.metadata = {}
    found = taken(notebook, tmp_path, "homework (2).ipynb")
    assert found.lesson.name == "00_start_here"
    assert found.answers["utilisation"].cells == (RIGHT,)
    assert "elsewhere in the notebook" in found.answers["utilisation"].notes[0]


def test_a_check_cell_that_is_missing_or_altered_is_told(tmp_path):
    notebook = answered(RIGHT)
    check = role(notebook, "check")[0]
    check.source = "print('Visible checks passed')"
    assert taken(notebook, tmp_path).answers["utilisation"].notes == (
        "its check cell was changed; the course's own was used",
    )
    notebook.cells.remove(check)
    assert taken(notebook, tmp_path).answers["utilisation"].notes == ("its check cell was missing and was put back",)


def test_a_missing_answer_is_missing(tmp_path):
    notebook = page()
    notebook.cells.remove(role(notebook, "answer")[0])
    assert taken(notebook, tmp_path).answers["utilisation"].missing


def test_helpers_at_the_top_come_along(tmp_path):
    notebook = answered(RIGHT)
    notebook.cells.insert(1, new_code_cell("import numpy as np"))
    assert taken(notebook, tmp_path).setup == ("import numpy as np",)


@pytest.mark.parametrize(
    "content, says",
    [
        ("", "not a notebook"),
        ("hello", "not a notebook"),
        ("[1, 2]", "not a notebook"),
        ('{"cells": 3, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "not a notebook"),
        ('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "no exercise of this course"),
        (b"\x80\x81\x00", "not a notebook"),
        ("[" * 100_000, "not a notebook"),
    ],
)
def test_what_is_no_notebook_gets_a_clear_line(tmp_path, content, says):
    path = tmp_path / "mine.ipynb"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UnreadableError, match=says):
        read_submission(path, templates())


def test_a_lesson_is_not_its_exercises(tmp_path):
    lesson = new_notebook(metadata={"pipelab": {"kind": "lesson", "lesson": "00_start_here"}})
    with pytest.raises(UnreadableError, match="this is the lesson, not its exercises"):
        taken(lesson, tmp_path)


def test_metadata_of_another_kind_does_not_stop_the_reader(tmp_path):
    notebook = answered(RIGHT)
    raw = json.loads(json.dumps(notebook))
    raw["metadata"]["pipelab"] = ["strange"]
    raw["cells"][0]["metadata"]["pipelab"] = "strange"
    path = tmp_path / "x.ipynb"
    path.write_text(json.dumps(raw))
    assert read_submission(path, templates()).answers["utilisation"].cells == (RIGHT,)
