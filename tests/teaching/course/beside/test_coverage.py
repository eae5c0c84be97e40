"""The table of topics: each leads to a cell that runs, a test and an exercise; and what leads nowhere is found."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from pipelab.errors import ConfigurationError
from pipelab.teaching.course.beside.coverage import coverage_faults, read_coverage
from pipelab.teaching.course.source import read_course
from tests.teaching.course.small import COVERAGE, small_course

ROOT = Path(__file__).parents[4]
LISTED = ROOT.parent / "shared" / "sources" / "README.md"
"""Where the project's own notes on the texts are at hand."""
NAMES = {"004": "example", "003": "survey", "002": "telling", "001": "intro", "000": "elsewhere"}


def faults(root, coverage):
    course = small_course(root, coverage=coverage)
    return [str(fault) for fault in coverage_faults(read_coverage(course), read_course(course), root)]


def test_every_topic_of_the_course_has_a_runnable_place():
    coverage = read_coverage(ROOT / "course")
    assert coverage_faults(coverage, read_course(ROOT / "course"), ROOT) == []
    assert len(coverage.topics) > 80


def test_a_table_that_leads_somewhere_has_no_faults(tmp_path):
    assert faults(tmp_path, COVERAGE) == []


@pytest.mark.parametrize(
    "old, new, says",
    [
        ('"apples = 3"', '"apples = 4"', "holds 'apples = 4'; the nearest is 'apples = 3'"),
        ("How many apples?", "How many pears?", "no heading 'How many pears?'; the nearest is 'How many apples?'"),
        ('["0", ', '["1", ', "there is no lesson 1; lessons are 0"),
        ('["0", "How many apples?", "apples = 3"]', '["0"]', "give a lesson's number, a heading and a piece of code"),
        ("::test_three", "::test_four", "tests/test_apples.py has no test test_four"),
        ("test_apples", "test_pears", "there is no test tests/test_pears.py"),
        ("test = ", 'exercise = "pears"\ntest = ', "no lesson has an exercise 'pears'"),
        ('["example"]', '["other"]', "there is no source 'other'; sources are example"),
        ('["example"]', "[]", "it names no source"),
        ("[sources]\n", '[sources]\nunused = "a text"\n', "no topic is of 'unused'"),
    ],
)
def test_what_leads_nowhere_is_told_with_its_line(tmp_path, old, new, says):
    told = faults(tmp_path, COVERAGE.replace(old, new))
    assert any(says in one for one in told), told
    assert all(re.match(r".*coverage\.toml:\d+: ", one) for one in told)


def test_a_topic_that_is_there_twice_is_told(tmp_path):
    twice = COVERAGE + COVERAGE[COVERAGE.index("[[topic]]") :]
    assert any("is there twice" in one for one in faults(tmp_path, twice))


@pytest.mark.parametrize(
    "text, says",
    [
        (COVERAGE.replace("test = ", "tests = "), "a topic has topic, of, at, test"),
        ("[sources", "this is not TOML"),
        ("[sources]\n", "has no topic"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path, text, says):
    with pytest.raises(ConfigurationError, match=says):
        read_coverage(small_course(tmp_path, coverage=text))


@pytest.mark.skipif(not LISTED.exists(), reason="the notes on the texts are not part of the repository")
def test_no_text_is_left_out_and_none_has_more_errors_noted_than_claims_here():
    text = LISTED.read_text()
    assert {NAMES[name] for name in re.findall(r"^\| `(\d+)_", text, re.MULTILINE)} == set(NAMES.values())
    claims = Counter(topic.of[0] for topic in read_coverage(ROOT / "course").topics if topic.wrong)
    for head, notes in re.findall(r"^\*\*([\d, ]+)\*\*\n(.*?)(?=^\*\*|\Z)", text, re.MULTILINE | re.DOTALL):
        names = [NAMES[name] for name in head.split(", ")]
        assert sum(claims[name] for name in names) >= len(re.findall("^- ", notes, re.MULTILINE)), head
