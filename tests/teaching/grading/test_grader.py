"""Grading end to end: what forty people hand in, by accident or on purpose."""

from __future__ import annotations

import hashlib
import json
import os
import xml.etree.ElementTree as ET
from pathlib import Path

import psutil
import pytest
from nbformat.v4 import new_code_cell

from pipelab.errors import ConfigurationError
from pipelab.teaching.exercises import exercise as find_exercise
from pipelab.teaching.grading.grader import find_notebooks, grade
from pipelab.teaching.grading.outputs import as_csv, as_junit, as_text, as_totals, write_feedback
from tests.teaching.grading.notebooks import RIGHT, answered, page, role, save

SILENCED = """
from IPython import get_ipython
import ast
get_ipython().set_custom_exc((BaseException,), lambda *a, **k: None)
class Drop(ast.NodeTransformer):
    def visit_Assert(self, node): return ast.Pass()
get_ipython().ast_transformers.append(Drop())
"""
ALWAYS = """
class Yes(float):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __sub__(self, other): return 0.0
    def __abs__(self): return 0.0
    __hash__ = float.__hash__
def utilisation(rows): return Yes(0.25)
"""
PATCHED = """
import pipelab.teaching.grading.check, pipelab.teaching.grading.recorder, pipelab.teaching.grading.asking
import pipelab.teaching.exercises.lesson_00.utilisation as own
own._judge = lambda case, data: None
pipelab.teaching.exercises.definition.Exercise.verdict = lambda self, case, answer: None
pipelab.teaching.grading.check.check = lambda *a: 1.0
check = lambda *a: 1.0
def utilisation(rows): return 0.123
"""
SILENT = """
from pipelab.teaching.grading import recorder
recorder.ask_all = lambda *a: None
def utilisation(rows): return 0.123
"""
FORGED = """
import json, pipelab.teaching.grading.recorder as recorder
def forged(name, space, cases, folder):
    with open(folder + "/answers", "w") as out:
        for case in cases:
            out.write(json.dumps({"data": True, "points": 2, "right": True}) + "\\n")
recorder.ask_all = forged
"""
REWRITES = """
import pathlib, pipelab.teaching.exercises.lesson_00.utilisation as own
path = pathlib.Path(own.__file__)
path.write_text(path.read_text().replace("def _judge(", "def _judge(case, data): return None\\ndef _other("))
def utilisation(rows): return 0.123
"""
NAP = str(4_000_000 + os.getpid())  # no other run's
BACKGROUND = (
    f"""
import subprocess
subprocess.Popen(["sleep", "{NAP}"], start_new_session=True)
subprocess.Popen(["sleep", "{NAP}"], start_new_session=True, env={{}})
"""
    + RIGHT
)
# Knows the visible tables and nothing else.
KNOWN = [str(case["_rows"]) for case in find_exercise("utilisation").visible]
BY_HEART = f"""
KNOWN = {KNOWN!r}
def utilisation(rows):
    cells = [cell for row in rows for cell in row]
    return sum(cell != "." for cell in cells) / len(cells) if str(rows) in KNOWN else 0.5
"""
SECRETS = """
import os
def utilisation(rows): return 0.5 if "PIPELAB_TEST_SECRET" in os.environ else 0.25
"""
PIPE = (
    """
import os
os.remove("../out/kernel")
os.mkfifo("../out/kernel")
"""
    + RIGHT
)

# learner -> (answer's cell, points, what the message has to say)
CROWD = {
    "right": (RIGHT, 2, "all points"),
    "background": (BACKGROUND, 2, "all points"),
    "crash": ("import os; os._exit(3)", 0, "the kernel ended"),
    "quits": ("quit()", 0, "there is no utilisation, or: does a cell call quit()"),  # by who ends first
    "quits-inside": ("def utilisation(rows): quit()", 0, "returned None"),
    "dies-inside": ("import os\ndef utilisation(rows): os.kill(os.getpid(), 9)", 0, "the kernel ended"),
    "loops": ("while True: pass", 0, "time limit"),
    "loops-inside": (
        "def utilisation(rows):\n    while True:\n        try: 1 / 0\n        except: pass",
        0,
        "did not return",
    ),
    "syntax": ("def utilisation(rows:\n    return 1", 0, "SyntaxError"),
    "silenced": (SILENCED + "def utilisation(rows): return 0.123", 0, "are not '.'"),
    "always-equal": (ALWAYS, 0, "utilisation returned 0.25"),
    "patched": (PATCHED, 0, "utilisation returned 0.123"),
    "silent": (SILENT, 0, "there is no result, although the cells ran"),
    "forged": (FORGED, 0, "should be a number, it is True"),
    "rewrites": (REWRITES, 0, "utilisation returned 0.123"),
    "prints": ("def utilisation(rows): print(0.5)", 0, "return it instead"),
    "none": ("def utilisation(rows): pass", 0, "returned None"),
    "mutates": ("def utilisation(rows): rows.clear(); return 0.5", 0, "changed its arguments"),
    "text": ("def utilisation(rows): return '0.5'", 0, "should be a number, it is text"),
    "number": ("utilisation = 0.5", 0, "it should be the function"),
    "first-part": ("def utilisation(rows): return 1 / len(rows)", 1, "any table: "),
    "helper-elsewhere": (
        "def utilisation(rows): return elsewhere(rows)",
        0,
        "No cell of the notebook defines this name",
    ),
    "endless": ("def utilisation(rows):\n    while True: yield 1", 0, "too large"),
    "by-heart": (BY_HEART, 0, "utilisation returned 0.5"),
    "secrets": (SECRETS, 0, "utilisation returned 0.25"),
    "pipe": (PIPE, 2, "all points"),
    "surrogate": ('def utilisation(rows): raise ValueError("caf\\udce9")', 0, "ValueError: caf?"),
    "half": ("# \\ud800" + RIGHT, 2, "all points"),
    "huge": ("def utilisation(rows): return 10 ** 400", 0, "beyond all bounds"),
    "monstrous": ("def utilisation(rows): return 10 ** 6000", 0, "more than a thousand digits"),
    "unspeakable": (
        "class E(Exception):\n    def __str__(self): raise E\ndef utilisation(rows): raise E",
        0,
        "raised E",
    ),
    "asks": ("def utilisation(rows): return float(input())", 0, "a function gets what it needs as arguments"),
    "thread": (
        "from concurrent.futures import ThreadPoolExecutor\nfrom pipelab import build_schedule\n"
        "def utilisation(rows): return ThreadPoolExecutor().submit(build_schedule, 'gpipe', 2, 2).result().share",
        0,
        "this exercise asks you to write it",
    ),
    "reference": (
        "from pipelab.teaching.exercises.lesson_00 import utilisation as own\n"
        "def utilisation(rows): return own.reference('gpipe', 3, 1)",
        0,
        "this exercise asks you to write it",
    ),
}


# What unit tests of asking and judging try as well: graded for real by make test-full.
RARE = {
    *("quits-inside", "none", "text", "number", "monstrous", "unspeakable", "asks", "half", "endless", "thread"),
    *("helper-elsewhere", "prints", "mutates", "dies-inside", "loops-inside", "quits", "always-equal", "by-heart"),
    *("secrets", "pipe", "surrogate", "huge", "rewrites", "silenced", "silent", "reference"),
}
OFTEN = {learner: told for learner, told in CROWD.items() if learner not in RARE}


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """All of them, graded at once; and what the files were before."""
    folder = tmp_path_factory.mktemp("submissions")
    for learner, (text, _, _) in OFTEN.items():
        save(answered(text), folder / learner / "00_start_here.ipynb")
    (folder / "no-notebook").mkdir()
    (folder / "no-notebook" / "00_start_here.ipynb").write_text("I could not save it")
    os.environ["PIPELAB_TEST_SECRET"] = "1"
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in folder.rglob("*.ipynb")}
    report = grade([folder], seconds=20, progress=False)
    after = {path: hashlib.sha256(path.read_bytes()).digest() for path in folder.rglob("*.ipynb")}
    return report, before, after


@pytest.mark.slow
def test_rarer_slips_get_a_clear_line_too(tmp_path):
    for learner in RARE:
        save(answered(CROWD[learner][0]), tmp_path / learner / "00_start_here.ipynb")
    report = grade([tmp_path], seconds=20, progress=False)
    for learner in RARE:
        _, points, says = CROWD[learner]
        (exercise,) = report.of(learner)[0].exercises
        told = any(part in exercise.message for part in says.split(", or: "))
        assert (exercise.points, told) == (points, True), (learner, exercise.message)


@pytest.mark.parametrize("learner", OFTEN)
def test_everyone_gets_a_clear_line_and_no_undeserved_point(crowd, learner):
    _, points, says = CROWD[learner]
    (notebook,) = crowd[0].of(learner)
    (exercise,) = notebook.exercises
    assert exercise.points == points, exercise.message
    assert says in exercise.message
    assert "\n" not in exercise.message.strip()


def test_every_report_can_be_written_whatever_was_handed_in(crowd, tmp_path):
    for text in (as_csv(crowd[0]), as_totals(crowd[0]), as_text(crowd[0])):
        text.encode("utf-8")
    ET.fromstring(as_junit(crowd[0]))
    assert len(write_feedback(crowd[0], tmp_path)) == len(crowd[0].learners())


def test_what_is_no_notebook_does_not_stop_the_others(crowd):
    (notebook,) = crowd[0].of("no-notebook")
    assert "not a notebook" in notebook.problem
    assert (notebook.points, notebook.possible) == (0, 0)


def test_nothing_is_changed_and_nothing_left_running(crowd):
    report, before, after = crowd
    assert before == after
    assert report.warnings == ()
    # Asked for up front, since processes of other tests end while this looks at them.
    assert not [p for p in psutil.process_iter(["cmdline"]) if NAP in (p.info["cmdline"] or ())]


def test_the_report_is_the_json_that_was_agreed(crowd):
    told = json.loads(json.dumps(crowd[0].to_json()))
    assert told["points"] == sum(points for _, points, _ in OFTEN.values())
    first = next(n for n in told["notebooks"] if n["learner"] == "right")
    assert {"path", "points", "possible", "exercises"} <= set(first)
    assert {"exercise", "points", "possible", "message"} <= set(first["exercises"][0])


def test_moved_renamed_and_split_answers_count(tmp_path):
    moved = page()
    role(moved, "answer")[0].source = "pass"
    moved.cells.append(new_code_cell(RIGHT))
    for cell in moved.cells:
        cell.metadata = {}
    moved.metadata = {"kernelspec": {"name": "nonsense", "display_name": "?", "language": "R"}}
    deleted = page()
    deleted.cells = [cell for cell in deleted.cells if cell.cell_type == "markdown"]
    deleted.cells.append(new_code_cell("# nothing"))
    deleted.metadata["pipelab"] = {"lesson": "00_start_here"}
    report = grade([save(moved, tmp_path / "renamed.ipynb"), save(deleted, tmp_path / "deleted.ipynb")], progress=False)
    first, second = report.notebooks
    assert first.points == 2
    assert "elsewhere in the notebook" in first.exercises[0].message
    assert second.points == 0
    assert "no cell defines utilisation" in second.exercises[0].message


@pytest.mark.slow
def test_an_answer_that_leans_on_another_exercises_cell_is_not_lost(tmp_path):
    """Its visible check passes, for the notebook's kernel knows the helper; graded, exercises run alone."""
    lesson = "02b_gradient_and_memory"
    solved, notebook = page(lesson, solved=True), page(lesson)
    for name in ("accumulate", "bubbles"):
        role(notebook, "answer", name)[0].source = role(solved, "answer", name)[0].source
    role(notebook, "answer", "accumulate")[0].source += "\n\ndef others(devices): return devices - 1"
    bubbles = role(notebook, "answer", "bubbles")[0]
    bubbles.source = bubbles.source.replace("(devices - 1)", "others(devices)")
    (found,) = grade([save(notebook, tmp_path / "a.ipynb")], progress=False).notebooks
    grades = {exercise.exercise: exercise for exercise in found.exercises}
    assert grades["bubbles"].points == grades["bubbles"].possible
    assert "it uses others from a cell of another exercise" in grades["bubbles"].message
    assert grades["accumulate"].message == "all points"


def test_whose_a_notebook_is(tmp_path):
    for name in ("anna/00_start_here.ipynb", "anna/.ipynb_checkpoints/00_start_here-checkpoint.ipynb", "ben/x/a.ipynb"):
        save(page(), tmp_path / "nested" / name)
    for name in (
        "00_start_here.ipynb",
        "cleo_00_start_here.ipynb",
        "00_start_here_dora (1).ipynb",
        "eva.ipynb",
        "fay_00_start_here_exercises.ipynb",
    ):
        save(page(), tmp_path / "flat" / name)

    def learners(folder):
        return [found.learner for found in find_notebooks([tmp_path / folder], ["00_start_here"])]

    assert learners("nested") == ["anna", "ben"]
    assert sorted(learners("flat")) == ["", "cleo", "dora", "eva", "fay"]
    with pytest.raises(ConfigurationError, match="there is no"):
        find_notebooks([Path("nowhere.ipynb")], [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="no notebook"):
        find_notebooks([tmp_path / "empty"], [])


@pytest.mark.slow
def test_one_notebook_of_a_lesson_counts_and_a_link_to_anothers_does_not(tmp_path):
    save(answered(RIGHT), tmp_path / "anna" / "00_start_here.ipynb")
    save(page(), tmp_path / "anna" / "00_start_here (1).ipynb")
    save(page(solved=True), tmp_path / "anna" / "clone" / "solutions" / "00_start_here.ipynb")
    (tmp_path / "zed").mkdir()
    (tmp_path / "zed" / "00_start_here.ipynb").symlink_to(tmp_path / "anna" / "00_start_here.ipynb")
    (tmp_path / "pia").mkdir()
    (tmp_path / "pia" / "answers.pdf").write_text("")
    report = grade([tmp_path], progress=False)
    assert [(n.path.name, n.points, n.problem) for n in report.of("anna")] == [
        ("00_start_here (1).ipynb", 0, "not counted: 00_start_here.ipynb of the same lesson is"),
        ("00_start_here.ipynb", 2, ""),
    ]
    assert report.points == report.possible == 2
    assert report.of("zed")[0].problem == "no exercises handed in: only 00_start_here.ipynb"
    assert report.of("pia")[0].problem == "no exercises handed in: only answers.pdf"


def test_folders_side_by_side_are_learners(tmp_path):
    for name in ("kim", "lou"):
        save(page(), tmp_path / name / "00_start_here.ipynb")
    found = find_notebooks([tmp_path / "kim", tmp_path / "lou"], ["00_start_here"])
    assert [one.learner for one in found] == ["kim", "lou"]


@pytest.mark.parametrize("file", ["judge.py", "__pycache__/judge.*.pyc"])
def test_what_is_judged_by_is_watched(file, tmp_path, monkeypatch):
    """A submission that finds and patches the copy that judges earns nothing, nor does anyone after it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    text = (
        f"import glob\nfolder = {str(tmp_path)!r} + '/pipelab-trusted-*/pipelab/teaching/grading/'\n"
        f"for name in glob.glob(folder + '{file}'):\n"
        "    open(name, 'a').write('# patched')\ndef utilisation(rows): return 0.123"
    )
    report = grade([save(answered(text), tmp_path / "a.ipynb")], progress=False)
    assert report.points == 0
    assert "changed the judge's code" in report.notebooks[0].exercises[0].message
    assert "files of pipelab changed" in report.warnings[0]


def test_lessons_in_a_folder_are_not_submissions(tmp_path):
    lesson = page()
    lesson.metadata["pipelab"]["kind"] = "lesson"
    save(lesson, tmp_path / "notebooks" / "00_start_here.ipynb")
    save(page(), tmp_path / "exercises" / "00_start_here.ipynb")
    (found,) = find_notebooks([tmp_path], ["00_start_here"])
    assert (found.path.parent.name, found.learner) == ("exercises", "")


def test_what_nbgrader_releases_counts_although_it_is_made_of_the_solutions_page(tmp_path):
    """It keeps that page's metadata: a class's submissions were all passed over."""
    kept = tmp_path / "anna" / "00_start_here" / "00_start_here.ipynb"
    save(page(solved=True), kept)
    save(page(solved=True), tmp_path / "anna" / "clone" / "solutions" / "00_start_here.ipynb")
    assert [found.path for found in find_notebooks([tmp_path], ["00_start_here"])] == [kept]
