"""The glossary: each entry leads to its cell, each term in bold has an entry."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelab.errors import ConfigurationError
from pipelab.teaching.course.beside.glossary import glossary_faults, glossary_page, read_glossary
from pipelab.teaching.course.build import lesson_page
from pipelab.teaching.course.source import read_course
from tests.teaching.course.small import GLOSSARY, small_course

ROOT = Path(__file__).parents[4]
LESSONS = read_course(ROOT / "course")


def faults(root, glossary):
    course = small_course(root, glossary=glossary)
    return [str(fault) for fault in glossary_faults(read_glossary(course), read_course(course))]


def test_every_entry_of_the_course_leads_to_a_cell_and_every_term_in_bold_has_one():
    glossary = read_glossary(ROOT / "course")
    assert glossary_faults(glossary, LESSONS) == []
    assert len(glossary.terms) >= 50


def test_its_links_name_cells_of_the_built_pages_that_are_code():
    page = glossary_page(read_glossary(ROOT / "course"), LESSONS, "")
    links = re.findall(r"\(notebooks/(\w+)\.ipynb#cell-id=(\w+)\)", page)
    assert len(links) == page.count("](")
    built = {
        lesson.name: {cell.id for cell in lesson_page(lesson, LESSONS).cells if cell.cell_type == "code"}
        for lesson in LESSONS
    }
    assert [(name, cell) for name, cell in links if cell not in built[name]] == []


@pytest.mark.parametrize(
    "text, says",
    [
        (GLOSSARY.replace('"basket"', '"bag"'), "00_small.py:14: 'basket' is bold and has no entry"),
        (GLOSSARY.replace("apples = 3", "pears"), "glossary.toml:4: 'basket': no code cell of lesson 0"),
        (GLOSSARY + GLOSSARY[GLOSSARY.index("[[") :], "'basket' has two entries"),
    ],
)
def test_what_is_wrong_in_it_is_told_with_its_line(tmp_path, text, says):
    assert any(says in one for one in faults(tmp_path, text))


def test_a_word_may_be_left_out(tmp_path):
    text = GLOSSARY.replace('"basket"', '"bag"').replace("left_out = []", 'left_out = ["basket"]')
    assert faults(tmp_path, text) == []


def test_an_entry_without_a_text_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="a term has term, text, at"):
        read_glossary(small_course(tmp_path, glossary=GLOSSARY.replace("text = ", "texts = ")))
