"""``pipelab course check``: what it says of a course with faults, and of a lesson without."""

from __future__ import annotations

import re

import pytest

from pipelab.__main__ import main

from .small import GLOSSARY, HEAD, small_course

WORDS = "# %% [markdown]\n# ## Words\n#\n# Nothing to run.\n"


def check(capsys, *arguments):
    status = main(["course", "check", *map(str, arguments)])
    return status, capsys.readouterr().out.splitlines()


def test_each_fault_has_a_file_a_line_and_what_to_do(tmp_path, capsys):
    course = small_course(tmp_path, glossary=GLOSSARY.replace("apples = 3", "pears = 3"))
    status, (*faults, last) = check(capsys, "--course", course, "--quick")
    assert status == 1
    assert all(re.match(r".+/course/\w+\.(py|toml):\d+: .+[;:,] .+", fault) for fault in faults), faults
    for said in ("glossary.toml:4: 'basket': no code cell", "00_small.py:1: no heading has 'on trial'"):
        assert any(said in fault for fault in faults)
    assert last == (
        f"1 lessons, {len(faults)} faults. Not checked here: solutions, wrong answers, whether pages are built and run "
        "without errors (make course), pictures and their words (make test)."
    )


@pytest.mark.slow  # other tests ask the same of all lessons
def test_a_lesson_of_the_course_has_none_also_when_its_answers_are_tried(capsys):
    assert check(capsys, "--only", "00")[0] == 0


def test_a_lesson_that_is_not_there_is_told(capsys):
    assert main(["course", "check", "--only", "77"]) == 2
    assert "no lesson begins with 77; lessons are 00_start_here, " in capsys.readouterr().err


def test_a_page_that_its_sources_no_longer_build_is_told(tmp_path, capsys):
    course = small_course(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("# Small\n\n<!-- course -->\n<!-- end -->\n")
    (tmp_path / "docs" / "instructors.md").write_text("# Teach\n\n<!-- timing -->\n<!-- end -->\n")
    _, lines = check(capsys, "--course", course, "--quick")
    assert sum("this is not what the sources build; make course" in line for line in lines) == 6


@pytest.mark.parametrize("page", ["README.md", "docs/instructors.md"])
def test_a_page_without_its_marks_is_told(tmp_path, capsys, page):
    course = small_course(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("<!-- course -->\n<!-- end -->\n")
    (tmp_path / "docs" / "instructors.md").write_text("<!-- timing -->\n<!-- end -->\n")
    (tmp_path / page).write_text("")
    assert main(["course", "check", "--course", str(course), "--quick"]) == 2
    assert "has no lines <!-- " in capsys.readouterr().err


def test_building_pages_says_which_entry_leads_nowhere(tmp_path, capsys):
    course = small_course(tmp_path, glossary=GLOSSARY.replace("apples = 3", "pears = 3"), lesson="")
    (course / "00_small.py").write_text(HEAD.format(number=0, title="Small", builds_on=[]) + WORDS)
    assert main(["course", "build", "--course", str(course)]) == 2
    said = capsys.readouterr()
    assert "built notebooks/00_small.ipynb" in said.out
    assert "glossary.toml:4: 'basket': lesson 0 has no heading 'How many apples?'" in said.err
    assert "pipelab course check lists them" in said.err
