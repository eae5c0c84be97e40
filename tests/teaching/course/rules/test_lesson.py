"""Each rule of a lesson's page finds a page that breaks it, with the line. For the course they are in test_pages.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelab.teaching.course.beside.about import read_about
from pipelab.teaching.course.rules.lesson import lesson_faults
from pipelab.teaching.course.source import read_course
from tests.teaching.course.small import ABOUT, small_course

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "course" / "00_start_here.py").read_text()


def faults(tmp_path, text):
    (tmp_path / "course").mkdir()
    (tmp_path / "course" / "00_start_here.py").write_text(text)
    (lesson,) = lessons = read_course(tmp_path / "course")
    return [str(fault) for fault in lesson_faults(lesson, lessons, None)]


def line(text):
    return PAGE[: PAGE.index(text)].count("\n") + 1


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("minutes: 25", "minutes: 90", ":1: minutes: 90; a page takes 5 to 70: make two pages"),
        ("builds_on: []", "builds_on: [7]", ":1: builds_on 7, which does not come before it; earlier are none"),
        ("# ## Run it", "# ## Run it\n#\n# A **stage** again.", "'stage' is bold a second time"),
        ("# ## Run it", "# ## Run it\n#\n# We simply run it!", "'simply' adds nothing; leave it out"),
        ("# ## Run it", "# ## Run it\n#\n# Run it!", "an exclamation mark; end with a full stop"),
        ("# ## Run it", "# ## Run it\n#\n# One and the same.", "'One and the same': the same"),
        ("# ## Run it", "# ## Run it\n#\n# See [there](nowhere.ipynb).", "the link to nowhere.ipynb leads nowhere"),
        ("# ## Run it", "# ## Run it\n#\n# - one\n# **Two** follow.", "without an empty line; add one"),
        ("# ## Break it", "# ## Take it apart", ":1: no heading has 'break it'"),
        ("from pipelab.teaching import *", "from pipelab.view import *", "it imports pipelab.view; a page comes in by"),
        ("print(schedule)", 'print("14 slots")', "a number in a print is a literal: '14 slots'"),
        ('predict("00-idle"', 'predict("0-idle"', "'0-idle' should begin with '00-'"),
        ('reveal("00-idle"', 'print("x"', "'00-idle' is answered 0 times; reveal it once"),
        ("What you should see, and why", "See", "a **Try it:** has no folded answer"),
        ('# %% role="setup"', "# %%", ":1: setup cells are on ['exercises']"),
    ],
)
def test_a_broken_rule_is_told_with_what_to_do(tmp_path, old, new, says):
    assert old in PAGE
    told = faults(tmp_path, PAGE.replace(old, new, 1))
    assert any(says in one for one in told), told


def test_the_line_is_that_of_the_cell(tmp_path):
    told = faults(tmp_path, PAGE.replace("print(schedule)", 'print("14 slots")', 1))
    assert any(f"00_start_here.py:{line('schedule = build_schedule')}: " in one for one in told), told


def test_a_word_of_a_later_lesson_is_told(tmp_path):
    course = small_course(tmp_path, about=f"{ABOUT}\n{ABOUT[ABOUT.index('[00') :]}".replace("[00", "[02", 1))
    about = (course / "lessons.toml").read_text().replace("[02_small]", '[02_small]\nintroduces = ["basket"]')
    (course / "lessons.toml").write_text(about)
    text = (course / "00_small.py").read_text()
    (course / "02_small.py").write_text(text.replace("number: 0", "number: 2"))
    lessons = read_course(course)
    told = {lesson.number: [str(f) for f in lesson_faults(lesson, lessons, read_about(course))] for lesson in lessons}
    assert any("00_small.py:12: 'basket' belongs to lesson 2" in one for one in told["0"]), told
    assert not any("belongs to lesson" in one for one in told["2"])


def test_a_page_without_anything_wrong_has_no_faults_but_links_to_the_rest_of_the_course(tmp_path):
    assert all("leads nowhere" in one for one in faults(tmp_path, PAGE))
