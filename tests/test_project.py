"""The project's files agree with one another, and imports stay light."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONDA_NAMES = {"pytorch": "torch"}


def split(requirement: str) -> tuple[str, str]:
    name, rest = re.fullmatch(r"([A-Za-z0-9_.-]+)(.*)", requirement).groups()
    return CONDA_NAMES.get(name, name).lower(), rest


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def declared(project, without=()):
    extras = project["optional-dependencies"]
    groups = [project["dependencies"], *(extras[name] for name in extras if name not in without)]
    return dict(split(requirement) for group in groups for requirement in group)


def test_environment_yml_asks_for_what_pyproject_asks_for(project):
    yaml = pytest.importorskip("yaml")
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = dict(split(entry) for entry in listed if isinstance(entry, str))
    python = conda.pop("python")
    assert python.startswith(project["requires-python"])
    conda.pop("pip")
    assert conda == declared(project, without=["models"])  # real models are for tests: see .ci/run
    assert {"pip": ["-e ."]} in listed


def test_constraints_pin_every_requirement_within_its_bounds(project):
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {}
    for line in lines:
        name, version = re.fullmatch(r"([A-Za-z0-9_.-]+)==([^\s+]+)", line).groups()
        pins[name.lower().replace("_", "-")] = tuple(map(int, re.findall(r"\d+", version)))
    assert pins["torch"] == (2, 13, 0)
    for name, bound in declared(project).items():
        least = tuple(map(int, re.search(r">=([\d.]+)", bound)[1].split(".")))
        assert pins[name] >= least, name


def test_the_readme_starts_with_the_two_commands():
    head = (ROOT / "README.md").read_text()[:1500]
    assert head.index("make lab") < head.index("make test") < head.index("make demo")


def test_the_package_says_the_version_of_the_project(project):
    import pipelab

    assert pipelab.__version__ == project["version"]
    assert (ROOT / "pipelab" / "py.typed").exists()


def test_public_names_exist():
    import pipelab

    for name in pipelab.__all__:
        assert getattr(pipelab, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pipelab.nothing


@pytest.mark.parametrize(
    "module",
    [
        "pipelab",
        "pipelab.view",
        "pipelab.__main__",
        "pipelab.tuning.tuner",
        "pipelab.teaching.board",
        "pipelab.teaching.board.breaker",
        "pipelab.teaching.board.widget",
        "pipelab.teaching.explorer",
        "pipelab.teaching.explorer.widget",
    ],
)
def test_what_draws_teaches_and_answers_loads_torch_only_when_something_runs(module):
    code = f"import sys, {module}\nif {module!r} == 'pipelab.view': from pipelab.view import *\n"
    told = subprocess.run([sys.executable, "-c", code + "sys.exit('torch' in sys.modules)"], cwd=ROOT, check=False)
    assert told.returncode == 0


def test_what_judges_and_asks_loads_neither_torch_nor_matplotlib():
    """They are started for each exercise that is graded; three quarters of a judge's time went into imports."""
    code = (
        "import sys, pipelab.teaching.grading.judge, pipelab.teaching.grading.recorder as r; r.exercises(); "
        "print(*sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert not {"torch", "matplotlib", "IPython"} & set(told.split())


def test_no_machine_of_ours_is_named():
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    for name in names:
        if name.endswith((".py", ".md", ".toml", ".yml", ".txt", "Makefile", ".ci/run")):
            text = (ROOT / name).read_text()
            assert str(ROOT.parent) + "/" not in text or str(ROOT.parent) == "/", name
