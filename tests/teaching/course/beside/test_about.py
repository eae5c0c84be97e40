"""What is said about pages by hand: each page has its entry, in two to four plain sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelab.errors import ConfigurationError
from pipelab.teaching.course.beside.about import about_faults, read_about
from pipelab.teaching.course.source import read_course
from tests.teaching.course.small import ABOUT, small_course

ROOT = Path(__file__).parents[4]


def test_the_entries_of_the_course_are_complete_and_plain():
    assert about_faults(read_about(ROOT / "course"), read_course(ROOT / "course")) == []


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("[00_small]", "[01_other]", "00_small.py:1: [00_small] is missing in lessons.toml"),
        ("[00_small]", "[01_other]", "there is no lesson 01_other"),
        ("Ask first. Then count together.", "Ask first.", "teach has 1 sentences; write 2 to 4"),
        ("There are three.", "There are three, one and the same.", "'one and the same': the same"),
        ("moment", 'introduces = ["("]\nmoment', "'(' is no regular expression"),
    ],
)
def test_what_is_wrong_in_them_is_told(tmp_path, old, new, says):
    course = small_course(tmp_path, about=ABOUT.replace(old, new))
    told = [str(fault) for fault in about_faults(read_about(course), read_course(course))]
    assert any(says in one for one in told), told


def test_an_entry_of_another_form_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="a page has can, moment, teach"):
        read_about(small_course(tmp_path, about=ABOUT.replace("moment", "moments")))
