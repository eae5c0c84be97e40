"""The builder and the learner's folder, on small sources."""

from __future__ import annotations

import json

import nbformat
import pytest

from pipelab.commands.course import build_course
from pipelab.errors import ConfigurationError
from pipelab.teaching.course.build import lesson_page, stub
from pipelab.teaching.course.source import course_folder, read_course, read_lesson
from pipelab.teaching.course.work import fill_work

HEAD = """\
# ---
# jupyter:
#   pipelab:
#     number: 0
#     title: Small
#     minutes: 10
#     builds_on: []
#     goals: [one, two, three]
# ---
"""
LESSON = (
    HEAD
    + """
# %% [markdown]
# Words.

# %%
import random
random.random()

# %% [markdown] page="exercises"
# Exercises.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="utilisation" difficulty="easy" minutes=5
# Do it.

# %% role="answer" exercise="utilisation"
def utilisation(rows: list[list[str]]) -> float:
    ### BEGIN SOLUTION
    cells = [cell for row in rows for cell in row]
    return sum(cell != "." for cell in cells) / len(cells)
    ### END SOLUTION

# %% [markdown] role="hint" exercise="utilisation"
# One.

# %% [markdown] role="hint" exercise="utilisation"
# Two.

# %% [markdown] role="hint" exercise="utilisation"
# Three.
"""
)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "course").mkdir()
    (tmp_path / "course" / "00_small.py").write_text(LESSON)
    return tmp_path


def build(root, **options):
    said = []
    changed = build_course(root / "course", say=said.append, **options)
    return [f"{path.parent.name}/{path.name}" for path in changed], said


@pytest.mark.slow  # the next one in this file that builds again is in make test
def test_building_again_without_a_change_changes_nothing(root):
    changed, _ = build(root)
    assert changed == ["notebooks/00_small.ipynb", "exercises/00_small.ipynb", "solutions/00_small.ipynb"]
    before = {path: path.read_bytes() for path in root.rglob("*.ipynb")}
    assert build(root) == ([], ["nothing to build: every page is up to date"])
    assert {path: path.read_bytes() for path in root.rglob("*.ipynb")} == before
    source = root / "course" / "00_small.py"
    source.write_text(LESSON.replace("Words.", "Other words."))
    assert len(build(root)[0]) == 3
    shown = nbformat.read(root / "notebooks" / "00_small.ipynb", 4).cells[2].outputs
    source.write_text(LESSON.replace("Words.", "Other words.").replace("# One.", "# Another hint."))
    build(root)  # the source's digest is another: outputs of an older one are stale, whatever it was that changed
    assert nbformat.read(root / "notebooks" / "00_small.ipynb", 4).cells[2].outputs != shown


def test_words_of_the_builder_change_without_running_anything_again(root, monkeypatch):
    """Another sentence at the head of every page ran all lessons again, for minutes."""
    build(root)
    path = root / "notebooks" / "00_small.ipynb"
    before = path.read_text()
    path.write_text(before.replace("After this lesson you can", "Then you can"))
    monkeypatch.setattr("pipelab.commands.course.executed", None)  # nothing may run
    assert build(root)[0] == ["notebooks/00_small.ipynb"]
    assert path.read_text() == before


def test_what_stands_around_the_cells_may_change_and_outputs_stay(root):
    """The link to the next lesson is no part of the source; a lesson of two pages is followed by its second one."""
    build(root)
    before = nbformat.read(root / "notebooks" / "00_small.ipynb", 4)
    for name, number in (("01_later", "1"), ("00b_second", "0b")):
        text = LESSON.replace("number: 0", f"number: {number}").replace("title: Small", f"title: Small {number}")
        (root / "course" / f"{name}.py").write_text(text)
        build(root, only=["00_"])
        now = nbformat.read(root / "notebooks" / "00_small.ipynb", 4)
        assert now.cells[-1].source.endswith(f"**Next lesson:** [{number} · Small {number}]({name}.ipynb).")
        assert [cell.get("outputs") for cell in now.cells] == [cell.get("outputs") for cell in before.cells]
    assert [lesson.number for lesson in read_course(root / "course")] == ["0", "0b", "1"]


def test_the_three_pages_of_a_source(root):
    build(root)
    pages = {f: nbformat.read(root / f / "00_small.ipynb", 4) for f in ("notebooks", "exercises", "solutions")}
    assert pages["notebooks"].cells[0].source.startswith("# 0 · Small")
    exercises = "\n".join(cell.source for cell in pages["exercises"].cells)
    assert '# YOUR CODE HERE\n    raise NotWritten("utilisation")' in exercises
    assert "len(cells)" not in exercises
    assert "<summary>Hint 3: nearly the code</summary>" in exercises
    assert "*Easy · 5 minutes · 2 points: one micro-batch 1, any table 1*" in exercises
    solutions = pages["solutions"].cells
    assert 'check("utilisation", utilisation)' in [cell.source for cell in solutions]
    assert any("Visible checks passed" in str(cell.get("outputs")) for cell in solutions)


def test_what_a_source_says_to_jupyterlab_stands_on_the_page(root):
    path = root / "course" / "00_small.py"
    path.write_text(LESSON.replace("# %%\nimport", '# %% jupyter={"source_hidden": true} tags=["a"]\nimport'))
    lesson = read_lesson(path)
    metadata = lesson_page(lesson, [lesson]).cells[2].metadata
    assert metadata == {"jupyter": {"source_hidden": True}, "tags": ["a"]}


def test_a_stub_keeps_what_is_around_the_solution():
    text = "def f(x):\n    y = 1\n    ### BEGIN SOLUTION\n    return x\n    ### END SOLUTION\n\n\nz = 3"
    assert stub(text, "f") == 'def f(x):\n    y = 1\n    # YOUR CODE HERE\n    raise NotWritten("f")\n\n\nz = 3'


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("#     minutes: 10\n", "", "its header has no minutes"),
        ("number: 0", "number: 0b", "its name says lesson 0, its header number: 0b"),
        ('role="setup"', 'role="set-up"', "role='set-up'"),
        (
            "# Two.\n",
            '# Two.\n\n# %% [markdown] role="hint" exercise="utilisation"\n# More.\n',
            "4 cells with role 'hint'",
        ),
        (' difficulty="easy"', "", "needs difficulty= one of easy, medium, hard"),
        ('page="exercises"', 'page="extra"', "pages lesson and exercises"),
        ("# ---\n\n# %%", "# ---\n\nx = 1\n\n# %%", "text stands above its first cell"),
    ],
)
def test_a_slip_in_a_source_is_told(root, old, new, says):
    path = root / "course" / "00_small.py"
    path.write_text(LESSON.replace(old, new, 1))
    with pytest.raises(ConfigurationError, match=says):
        read_lesson(path)


def test_without_sources_it_says_where_they_come_from(tmp_path):
    with pytest.raises(ConfigurationError, match="install from a clone"):
        course_folder(tmp_path)


def test_work_is_filled_once_and_never_overwritten(root):
    build(root)
    work = root / "work"
    added, outdated = fill_work(root, work)
    assert sorted(str(path.relative_to(work)) for path in added) == [
        "exercises/00_small_exercises.ipynb",
        "guesses.json",
        "notebooks/00_small.ipynb",
    ]
    lesson = nbformat.read(work / "notebooks" / "00_small.ipynb", 4)
    assert not any(cell.get("outputs") for cell in lesson.cells), "results would spoil the predictions"
    assert "(../exercises/00_small_exercises.ipynb)" in lesson.cells[0].source
    assert lesson.cells[0].source.endswith("[All lessons and your points so far](../index.ipynb)")
    mine = work / "exercises" / "00_small_exercises.ipynb"
    text = mine.read_text().replace("# YOUR CODE HERE", "# mine")
    mine.write_text(text)
    (work / "guesses.json").write_text('[{"name": "a"}]')
    (root / "course" / "00_small.py").write_text(LESSON.replace("Words.", "Other words."))
    build(root)
    added, outdated = fill_work(root, work)
    assert added == []
    assert sorted(path.parent.name for path in outdated) == ["exercises", "notebooks"]
    assert mine.read_text() == text
    assert json.loads((work / "guesses.json").read_text()) == [{"name": "a"}]
    mine.write_text("not a notebook any more")
    assert fill_work(root, work)[0] == []
