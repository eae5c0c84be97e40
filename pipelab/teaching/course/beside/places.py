"""Where something is shown: a code cell of a lesson, named by its heading and a piece of its code."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipelab.errors import ConfigurationError
from pipelab.teaching.course.build import FOLDERS, cell_id
from pipelab.teaching.course.source import Cell, Lesson

__all__ = ["Place", "find_place", "sections"]


@dataclass(frozen=True)
class Place:
    """A code cell under a heading of a lesson."""

    lesson: Lesson
    heading: str
    cell: Cell

    @property
    def words(self) -> str:
        """``"Lesson 2, Two measures of one bubble"``."""
        return f"Lesson {self.lesson.number}, {self.heading}"

    def link(self, root: str = "") -> str:
        """To the cell itself, from a page with the course's folders in ``root``: JupyterLab and HTML pages go there."""
        return f"{root}{FOLDERS['lesson']}/{self.lesson.name}.ipynb#cell-id={cell_id(self.lesson, self.cell)}"


def sections(lesson: Lesson) -> Iterator[tuple[str, list[Cell]]]:
    """Each heading of the lesson's page with the code cells under it."""
    heading, cells = "", list[Cell]()
    for cell in lesson.page("lesson"):
        if cell.kind == "code":
            cells.append(cell)
            continue
        for found in re.findall(r"^##+ (.*)$", cell.text, re.MULTILINE):
            yield heading, cells
            heading, cells = found, []
    yield heading, cells


def find_place(lessons: Sequence[Lesson], at: Sequence[str]) -> Place:
    """The first code cell of lesson ``at[0]`` under heading ``at[1]`` that holds the text ``at[2]``.

    Raises ConfigurationError, which offers the nearest lesson, heading or piece of code.
    """
    if len(at) != 3 or not all(isinstance(word, str) and word for word in at):
        raise ConfigurationError(f"{at!r} is no place; give a lesson's number, a heading and a piece of code")
    number, heading, code = at
    lesson = next((one for one in lessons if one.number == number), None)
    if lesson is None:
        raise ConfigurationError(f"there is no lesson {number}; lessons are {', '.join(one.number for one in lessons)}")
    under = dict(sections(lesson))
    if heading not in under:
        raise ConfigurationError(f"lesson {number} has no heading '{heading}'{_nearest(heading, list(under))}")
    for cell in under[heading]:
        if code in cell.text:
            return Place(lesson, heading, cell)
    lines = [line.strip() for cell in under[heading] for line in cell.text.splitlines()]
    raise ConfigurationError(
        f"no code cell of lesson {number} under '{heading}' holds '{code}'{_nearest(code, lines)}"
        if lines
        else f"lesson {number} has no code cell under '{heading}'; name another heading"
    )


def _nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0)
    return f"; the nearest is '{close[0]}'" if close else ""
