"""The map: one row per lesson, arcs for what builds directly on what."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from pipelab.teaching.course.beside.coverage import read_coverage
from pipelab.teaching.course.pages.picture import course_map, direct
from pipelab.teaching.course.source import read_course
from tests.teaching.course.small import HEAD, LESSON, small_course


def course(tmp_path):
    sources = small_course(tmp_path)
    for number, builds_on in (("1", [0]), ("2", [0, 1])):
        head = HEAD.format(number=number, title=f"More & more {number}", builds_on=builds_on)
        (sources / f"0{number}_more.py").write_text(head + LESSON)
    return read_course(sources), read_coverage(sources)


def test_what_another_lesson_builds_on_already_has_no_arc_of_its_own(tmp_path):
    lessons, _ = course(tmp_path)
    assert direct(lessons) == {"0": (), "1": ("0",), "2": ("1",)}


def test_it_names_every_lesson_and_counts_topics(tmp_path):
    lessons, coverage = course(tmp_path)
    picture = ET.fromstring(course_map(lessons, coverage))
    name = "{http://www.w3.org/2000/svg}"
    texts = [text.text for text in picture.iter(f"{name}text")]
    assert {"Small", "More & more 1", "More & more 2", "example", "10"} <= set(texts)
    assert len(list(picture.iter(f"{name}path"))) == 2
    assert len(list(picture.iter(f"{name}circle"))) == 3 + 1, "a dot per lesson, and one count of topics"
    assert course_map(lessons, None).count("<circle") == 3
