"""``pipelab grade`` and ``pipelab course`` at the command line."""

from __future__ import annotations

import csv
import json

import pytest

from pipelab.__main__ import main
from tests.teaching.grading.notebooks import RIGHT, answered, page, save


@pytest.fixture(scope="module")
def submissions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("class")
    save(answered(RIGHT), folder / "anna" / "00_start_here_exercises.ipynb")
    save(page(), folder / "ben" / "00_start_here_exercises.ipynb")
    (folder / "roster.csv").write_text("learner,name\nanna,Anna A.\nben,Ben B.\neva,Eva E.\n")
    (folder / "override.csv").write_text("learner,exercise,points,reason\nben,utilisation,1,told orally\n")
    return folder


def test_a_class_is_graded_and_everything_written(submissions, tmp_path, capsys):
    files = {name: tmp_path / name for name in ("grades.csv", "totals.csv", "junit.xml", "grades.json", "feedback")}
    status = main(
        [
            *("grade", str(submissions), "--csv", str(files["grades.csv"]), "--totals", str(files["totals.csv"])),
            *("--junit", str(files["junit.xml"]), "--json", str(files["grades.json"])),
            *("--feedback", str(files["feedback"]), "--seed", "7", "--jobs", "1"),
            *("--roster", str(submissions / "roster.csv"), "--override", str(submissions / "override.csv")),
        ]
    )
    said = capsys.readouterr().out
    assert status == 1
    assert [line.split("  ")[0] for line in said.splitlines()[:3]] == ["anna (Anna A.)", "ben (Ben B.)", "eva (Eva E.)"]
    report = json.loads(files["grades.json"].read_text())
    assert (report["seed"], report["points"], report["possible"]) == (7, 3, 4)
    with open(files["totals.csv"]) as file:
        assert [(row["learner"], row["points"], row["possible"]) for row in csv.DictReader(file)] == [
            ("anna", "2", "2"),
            ("ben", "1", "2"),
            ("eva", "0", "2"),
        ]
    assert sorted(path.name for path in files["feedback"].iterdir()) == ["anna.html", "ben.html", "eva.html"]
    assert files["junit.xml"].read_text().startswith("<?xml")
    assert "nothing handed in" in files["grades.csv"].read_text()


def test_all_points_are_status_0_and_json_is_all_there_is_on_standard_output(submissions, capsys):
    assert main(["grade", str(submissions / "anna" / "00_start_here_exercises.ipynb"), "--json", "-"]) == 0
    streams = capsys.readouterr()
    assert json.loads(streams.out)["points"] == 2
    assert "2 of 2 points" in streams.err


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["nowhere.ipynb"], "there is no nowhere.ipynb"),
        (["{}", "--jobs", "0"], "--jobs must be at least 1"),
        (["{}", "--timeout", "inf"], "--timeout must be positive"),
        (["{}", "--csv", "{}"], "is a folder; give the name of a file"),
        (["{}", "--csv", "{}/none/x.csv"], "there is no folder"),
        (["{}", "--feedback", "{}/roster.csv"], "is a file; give a folder"),
        (["{}", "--course", "{}"], "contains no lessons"),
        (["{}", "--index", "{}/none"], "is not a folder; give the work folder"),
        (["{}", "--roster", "{}/override.csv", "--override", "{}/roster.csv"], "has no column"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(submissions, capsys, arguments, says):
    assert main(["grade", *(argument.format(submissions) for argument in arguments)]) == 2
    assert says in capsys.readouterr().err


def test_what_cannot_be_graded_at_all_is_status_2(tmp_path, capsys):
    (tmp_path / "a.ipynb").write_text("no")
    assert main(["grade", str(tmp_path / "a.ipynb")]) == 2
    assert "not a notebook" in capsys.readouterr().out


@pytest.mark.slow  # test_index.py and the command itself are in make test
def test_make_grade_brings_the_index_up_to_date(tmp_path, capsys):
    work = tmp_path / "work"
    assert main(["course", "work", "--work", str(work)]) == 0
    before = (work / "index.ipynb").read_text()
    assert "Nothing has been graded yet" in before
    mine = save(answered(RIGHT), work / "exercises" / "00_start_here_exercises.ipynb")
    only = tmp_path / "only"  # of six lessons one, to be quick
    save(answered(RIGHT), only / "exercises" / "00_start_here_exercises.ipynb")
    text = mine.read_text()
    assert main(["grade", str(only), "--index", str(work), "--jobs", "1"]) == 0
    after = (work / "index.ipynb").read_text()
    assert "2 of 2 | **all**" in after
    assert "**Next:** [lesson 1 " in after
    assert mine.read_text() == text
    assert main(["course", "work", "--work", str(work)]) == 0
    assert (work / "index.ipynb").read_text() == after, "what was graded is remembered"
    capsys.readouterr()
    (work / "index.ipynb").write_text("mine")
    assert main(["grade", str(only), "--index", str(work), "--jobs", "1"]) == 0
    assert "this file is not an index of the course" in capsys.readouterr().out
    assert (work / "index.ipynb").read_text() == "mine"


def test_work_is_filled_and_says_so(tmp_path, capsys):
    assert main(["course", "work", "--work", str(tmp_path / "work")]) == 0
    assert "new file(s)" in capsys.readouterr().out
    assert main(["course", "work", "--work", str(tmp_path / "work")]) == 0
    assert "nothing new" in capsys.readouterr().out
