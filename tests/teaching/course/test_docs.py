"""Pages that repeat what the course's sources say are held against them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelab.teaching.course.build import exercise_minutes
from pipelab.teaching.course.pages.documents import documents
from pipelab.teaching.course.source import read_course
from pipelab.teaching.grading.outputs import COLUMNS, TOTALS

ROOT = Path(__file__).parents[3]
LESSONS = read_course(ROOT / "course")


def test_what_follows_from_the_sources_is_what_they_build():
    """README's table, the map, the topics, the glossary, the timing sheet and a page per lesson for instructors."""
    built = documents(LESSONS)
    assert len(built) == 5 + len(LESSONS)
    assert {path.name for path, text in built.items() if not path.exists() or path.read_text() != text} == set()
    kept = {path.name for path in (ROOT / "docs" / "lessons").iterdir()}
    assert kept == {f"{lesson.name}.md" for lesson in LESSONS}


def test_the_columns_that_are_promised_are_written():
    text = (ROOT / "docs" / "instructors.md").read_text()
    rows = {match[1]: match[2] for match in re.finditer(r"^\| `--(csv|totals) FILE` \| (.*) \|$", text, re.MULTILINE)}
    assert tuple(re.findall(r"`(\w+)`", rows["csv"])) == COLUMNS
    assert tuple(re.findall(r"`(\w+)`", rows["totals"])) == TOTALS


DOCS = (path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md")))
PAGES = ["README.md", "CONTRIBUTING.md", *DOCS]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        assert target.startswith("https://") or ((ROOT / page).parent / target).exists(), target


def test_the_readme_lists_every_lesson_with_its_minutes_and_those_of_its_exercises():
    text = (ROOT / "README.md").read_text()
    for lesson in LESSONS:
        first = re.escape(f"| {lesson.number} | [{lesson.title}](notebooks/{lesson.name}.ipynb) |")
        minutes = re.escape(f"| {lesson.minutes} + {exercise_minutes(lesson)} |")
        last = re.escape(f"(exercises/{lesson.name}.ipynb) |")
        assert re.search(rf"^{first} [^|]* {minutes} \[exercises?\]{last}$", text, re.MULTILINE), lesson.name


def test_the_readme_says_how_long_the_course_is():
    minutes = sum(lesson.minutes + exercise_minutes(lesson) for lesson in LESSONS)
    told = int(re.search(r"about (\d+) hours in all", (ROOT / "README.md").read_text())[1])
    assert told == round(minutes / 60), f"{minutes} minutes"
