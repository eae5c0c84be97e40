"""The round trip through nbgrader: what it hands out and grades earns the points that pipelab gives."""

from __future__ import annotations

import csv
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig

import nbformat
import pytest

from pipelab.teaching.grading.grader import grade
from tests.teaching.grading.notebooks import RIGHT, page, role, save

HALF = "def utilisation(rows):\n    return 1 / len(rows)\n"
ANSWERS = {"anna": RIGHT, "ben": HALF, "cleo": None, "dora": "def utilisation(rows): return 2"}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("nbgrader") is None, reason="nbgrader is not installed")
def test_nbgrader_gives_the_points_that_pipelab_gives(tmp_path):
    path = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"  # nbgrader calls alembic

    def nbgrader(*arguments):
        ran = subprocess.run(
            [sys.executable, "-m", "nbgrader", *arguments],
            cwd=tmp_path,
            env=os.environ | {"JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr[-3000:]

    name = "00_start_here"
    save(page(name, solved=True), tmp_path / "source" / name / f"{name}.ipynb")
    nbgrader("generate_assignment", name)
    released = tmp_path / "release" / name / f"{name}.ipynb"
    assert "len(cells)" not in released.read_text()
    for learner, answer in ANSWERS.items():
        notebook = nbformat.read(released, 4)
        if answer is not None:
            role(notebook, "answer")[0].source = answer
        save(notebook, tmp_path / "submitted" / learner / name / f"{name}.ipynb")
    nbgrader("autograde", name)
    nbgrader("export", "--to", "grades.csv")
    with open(tmp_path / "grades.csv") as file:
        theirs = {row["student_id"]: float(row["raw_score"]) for row in csv.DictReader(file)}
    ours = grade([tmp_path / "submitted"], progress=False)
    assert theirs == {learner: sum(n.points for n in ours.of(learner)) for learner in ours.learners()}
    assert theirs == {"anna": 2, "ben": 1, "cleo": 0, "dora": 0}
    shutil.rmtree(tmp_path / "autograded")
