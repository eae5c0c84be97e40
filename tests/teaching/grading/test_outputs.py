from __future__ import annotations

import csv
import io
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from pipelab.errors import ConfigurationError
from pipelab.teaching.grading.grades import ExerciseGrade, NotebookGrade, PartGrade, Report
from pipelab.teaching.grading.outputs import COLUMNS, as_csv, as_junit, as_text, as_totals, write_feedback
from pipelab.teaching.grading.roster import (
    Override,
    apply_overrides,
    apply_roster,
    check_overrides,
    read_overrides,
    read_roster,
)


def notebook(learner, first, second, message="<b>p = 2</b>, m = 3: no\x00t yet\nreally"):
    parts = (PartGrade("m >= p", first, 2), PartGrade("m < p", second, 1, "" if second else message, "QUJD", "a table"))
    grade = ExerciseGrade("gpipe", "GPipe", parts, ("its check cell was missing and was put back",))
    return NotebookGrade(Path(learner, "02_gpipe.ipynb"), learner, "02_gpipe", "2 · GPipe", (grade,))


@pytest.fixture
def report():
    broken = NotebookGrade(Path("cleo", "x.ipynb"), "cleo", "", "", (), "not a notebook")
    return Report((notebook("anna", 2, 1), notebook("=ben", 2, 0), broken), 5)


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_has_a_row_per_part(report):
    found = rows(as_csv(report, {"anna": "Anna A."}))
    assert tuple(found[0]) == COLUMNS
    assert [(r["learner"], r["name"], r["part"], r["points"]) for r in found] == [
        ("anna", "Anna A.", "m >= p", "2"),
        ("anna", "Anna A.", "m < p", "1"),
        ("'=ben", "", "m >= p", "2"),  # a spreadsheet would take it for a formula
        ("'=ben", "", "m < p", "0"),
        ("cleo", "", "", "0"),
    ]
    assert found[2]["message"] == "its check cell was missing and was put back"
    assert found[3]["message"] == "<b>p = 2</b>, m = 3: not yet really"
    assert found[4]["message"] == "not a notebook"


def test_totals_have_a_row_per_learner(report):
    found = rows(as_totals(report))
    assert [(r["learner"], r["points"], r["possible"], r["02_gpipe (of 3)"]) for r in found] == [
        ("anna", "3", "3", "3"),
        ("'=ben", "2", "3", "2"),
        ("cleo", "0", "3", "0"),
    ]


def test_junit_is_xml_with_a_failure_for_less_than_all(report):
    suites = ET.fromstring(as_junit(report))
    assert [(s.get("failures"), s.get("errors")) for s in suites] == [("0", "0"), ("1", "0"), ("0", "1")]
    assert suites[1][0][0].get("message").startswith("2 of 3: m < p: <b>p = 2</b>")


def test_text_says_what_to_read_next(report):
    alone = as_text(Report((report.notebooks[1],)))
    assert "2 of 3" in alone
    assert "m < p: <b>p = 2</b>, m = 3: not yet really (its check cell was missing" in alone
    assert as_text(report).splitlines()[2] == "cleo      0 of 0  x.ipynb: not a notebook"


def test_feedback_is_a_page_per_learner_that_nothing_in_a_submission_can_break_out_of(report, tmp_path):
    pages = write_feedback(report, tmp_path / "feedback", {"anna": "Anna <A.>"})
    assert [page.name for page in pages] == ["anna.html", "ben.html", "cleo.html"]
    text = pages[1].read_text()
    assert "<b>p = 2" not in text
    assert "&lt;b&gt;p = 2" in text
    assert '<img alt="a table" src="data:image/png;base64,QUJD">' in text
    assert "Anna &lt;A.&gt;" in pages[0].read_text()


def test_the_roster_brings_those_who_handed_in_nothing(report, tmp_path):
    path = tmp_path / "roster.csv"
    path.write_text("\ufefflearner, name\nanna,Anna A.\ndora,Dora D.\n", encoding="utf-8")
    names = read_roster(path)
    assert names == {"anna": "Anna A.", "dora": "Dora D."}
    whole, strangers = apply_roster(report, names)
    assert strangers == ["=ben", "cleo"]
    assert whole.of("dora")[0].problem == "nothing handed in"
    assert rows(as_csv(whole, names))[-1]["message"] == "nothing handed in"


def test_an_override_replaces_points_and_says_why(report, tmp_path):
    path = tmp_path / "override.csv"
    path.write_text("learner,exercise,points,reason\n=ben,gpipe,2.5,argued well\n")
    changed, unused = apply_overrides(report, read_overrides(path))
    assert unused == []
    (absent,) = apply_overrides(report, [Override("eva", "gpipe", 1, "told orally")])[1]
    assert absent.learner == "eva"
    assert changed.of("=ben")[0].points == 2.5
    assert "set by the instructor: argued well" in changed.of("=ben")[0].exercises[0].message
    assert report.of("=ben")[0].points == 2
    assert rows(as_csv(changed))[2]["points"] == "2.5"


@pytest.mark.parametrize(
    "text, says",
    [
        ("learner,exercise,points\nanna,gpipe,1\n", "no column reason"),
        ("learner,exercise,points,reason\nanna,gpipe,many,x\n", "line 2: points is 'many'"),
        ("learner,exercise,points,reason\nanna,gpipe,1,\n", "needs a reason"),
        ("learner,exercise,points,reason\nanna,gpip,1,x\n", "did you mean 'gpipe'"),
        ("learner,exercise,points,reason\nanna,gpipe\n", "points is ''"),
        ("learner;exercise;points;reason\nanna;gpipe;1;x\n", "use commas"),
        ("learner,exercise,points,reason\nanna,gpipe,9,x\n", "9 points, there are 3"),
    ],
)
def test_an_override_that_cannot_be_is_told(tmp_path, text, says):
    path = tmp_path / "override.csv"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        check_overrides(read_overrides(path))
