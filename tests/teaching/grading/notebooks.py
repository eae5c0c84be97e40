"""Submissions to grade: the exercises page of a lesson, with cells changed."""

from __future__ import annotations

import functools
from pathlib import Path

import nbformat

from pipelab.teaching.course.build import exercises_page
from pipelab.teaching.course.source import read_course
from pipelab.teaching.grading.submission import Template

ROOT = Path(__file__).parents[3]


@functools.cache
def templates():
    return tuple(Template.of(lesson) for lesson in read_course(ROOT / "course") if lesson.exercises)


def page(lesson="00_start_here", *, solved=False):
    found = next(template.lesson for template in templates() if template.lesson.name == lesson)
    return exercises_page(found, solved=solved)


def role(notebook, role, exercise=None):
    """The code cells in one role."""
    return [
        cell
        for cell in notebook.cells
        if cell.cell_type == "code"
        and cell.metadata.get("pipelab", {}).get("role") == role
        and exercise in (None, cell.metadata.pipelab.get("exercise"))
    ]


def save(notebook, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


RIGHT = """
def utilisation(rows):
    cells = [cell for row in rows for cell in row]
    return sum(cell != "." for cell in cells) / len(cells)
"""


def answered(text):
    """Lesson 0's page with ``text`` as its answer."""
    notebook = page()
    role(notebook, "answer")[0].source = text
    return notebook
