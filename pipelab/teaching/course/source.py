"""One source per lesson: a jupytext percent script in ``course/``.

Its header gives the notebook's metadata under ``jupyter: pipelab:`` (``number``, ``title``, ``minutes``, ``builds_on``,
``goals``). A lesson too long for one sitting has two pages, each a source of its own: ``05_choosing_m.py`` is number 5,
``05b_memory_wall.py`` number 5b.

A cell's header may give ``role`` and ``exercise``; ``page="exercises"`` begins the second page. Roles:

========  ==============================================================================================
setup     imports and data that the cells below use; one at the top of each page, at most five lines, or folded
lead      an exercise's goal in words, with ``difficulty`` and ``minutes``
answer    its stub and solution, parted by ``### BEGIN SOLUTION`` and ``### END SOLUTION`` (nbgrader's marks)
hint      three of them: a nudge, the approach, nearly the code
solution  what is said about the answer in the solutions alone
further   beyond the core path
========  ==============================================================================================

``tags`` and ``jupyter`` go to the page as they are: ``jupyter={"source_hidden": true}`` folds a cell of plumbing.
Check cells are not written by hand: an exercise's definition in ``pipelab/teaching/exercises`` says what they call.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jupytext

from pipelab.errors import ConfigurationError

__all__ = ["ROLES", "Cell", "Lesson", "course_folder", "read_course", "read_lesson"]

ROLES = ("", "setup", "lead", "answer", "hint", "solution", "further")
FILES = "[0-9][0-9]*_*.py"
"""What sources are called. Their order is that of the names: 05_, 05b_, 06_."""
NEEDED = ("number", "title", "minutes", "builds_on", "goals")
DIFFICULTIES = ("easy", "medium", "hard")


@dataclass(frozen=True)
class Cell:
    """One cell of a source. ``kind`` is "markdown" or "code", ``page`` "lesson" or "exercises"."""

    kind: str
    text: str
    page: str
    role: str = ""
    exercise: str = ""
    options: Mapping[str, Any] | None = None
    """What else its header says: ``difficulty``, ``minutes``, ``tags``, ``jupyter``."""
    line: int = 0
    """Line of the source on which its text begins."""


@dataclass(frozen=True)
class Lesson:
    """One lesson. ``name`` is its file's stem, such as ``"02_gpipe"``; ``digest`` changes with the source.

    ``number`` is what readers call it, "5" or "5b"; ``builds_on`` are numbers too.
    """

    name: str
    number: str
    title: str
    minutes: int
    builds_on: tuple[str, ...]
    goals: tuple[str, ...]
    cells: tuple[Cell, ...]
    digest: str
    path: Path

    def page(self, page: str) -> tuple[Cell, ...]:
        """The cells of one page."""
        return tuple(cell for cell in self.cells if cell.page == page)

    @property
    def exercises(self) -> tuple[str, ...]:
        """Names of its exercises, in order."""
        return tuple(dict.fromkeys(cell.exercise for cell in self.cells if cell.exercise))

    def cells_of(self, exercise: str, role: str) -> tuple[Cell, ...]:
        """The cells of one exercise in one role."""
        return tuple(cell for cell in self.cells if cell.exercise == exercise and cell.role == role)


def course_folder(folder: Path | None = None) -> Path:
    """Where the sources are: ``folder``, or ``course/`` beside the package.

    Raises ConfigurationError if there are none.
    """
    found = Path(__file__).resolve().parents[3] / "course" if folder is None else Path(folder)
    if not any(found.glob(FILES)):
        raise ConfigurationError(
            f"{found} contains no lessons. The course is in pipelab's repository: install from a clone of it, "
            "or give the folder of the sources (--course DIR)"
        )
    return found


def read_course(folder: Path | None = None) -> tuple[Lesson, ...]:
    """All lessons, in order."""
    return tuple(read_lesson(path) for path in sorted(course_folder(folder).glob(FILES)))


def read_lesson(path: Path) -> Lesson:
    """Read one source. Raises ConfigurationError naming the file and what is wrong in it."""
    return _read(path, path.read_text(encoding="utf-8"))


@cache  # a source takes a fifth of a second
def _read(path: Path, text: str) -> Lesson:
    notebook = jupytext.reads(text, fmt="py:percent")
    head: dict[str, Any] = dict(notebook.metadata.get("pipelab", {}))
    lacking = [key for key in NEEDED if key not in head]
    if lacking:
        raise ConfigurationError(f"{path}: its header has no {', '.join(lacking)} (under jupyter: pipelab:)")
    number = path.stem.partition("_")[0].removeprefix("0")
    if str(head["number"]) != number:
        raise ConfigurationError(f"{path}: its name says lesson {number}, its header number: {head['number']}")
    cells: list[Cell] = []
    page = "lesson"
    lines = [number for number, line in enumerate(text.splitlines(), 2) if line.startswith("# %%")]
    if len(lines) != len(notebook.cells):
        raise ConfigurationError(f"{path}: text stands above its first cell; begin it with a line # %% [markdown]")
    for cell, line in zip(notebook.cells, lines, strict=True):
        options = dict(cell.metadata)
        page = options.pop("page", page)
        role, exercise = options.pop("role", ""), options.pop("exercise", "")
        made = Cell(cell.cell_type, cell.source, page, role, exercise, options, line)
        if made.role not in ROLES or page not in ("lesson", "exercises"):
            raise ConfigurationError(
                f"{path}: a cell has role={made.role!r} on page={page!r}; roles are {', '.join(ROLES[1:])}; pages "
                f"lesson and exercises. It begins: {cell.source[:60]!r}"
            )
        cells.append(made)
    _check_exercises(path, cells)
    return Lesson(
        name=path.stem,
        number=str(head["number"]),
        title=str(head["title"]),
        minutes=int(head["minutes"]),
        builds_on=tuple(map(str, head["builds_on"])),
        goals=tuple(head["goals"]),
        cells=tuple(cells),
        digest=hashlib.sha256(text.encode()).hexdigest()[:16],
        path=path,
    )


def _check_exercises(path: Path, cells: Sequence[Cell]) -> None:
    for name in dict.fromkeys(cell.exercise for cell in cells if cell.exercise):
        own = [cell for cell in cells if cell.exercise == name]
        roles = [cell.role for cell in own]
        wanted = {"lead": 1, "answer": None, "hint": 3}
        for role, count in wanted.items():
            found = roles.count(role)
            if found != count and (count is not None or not found):
                raise ConfigurationError(
                    f"{path}: exercise {name} has {found} cells with role {role!r}, not {count or 1}"
                )
        lead = next(cell for cell in own if cell.role == "lead").options or {}
        if lead.get("difficulty") not in DIFFICULTIES or not isinstance(lead.get("minutes"), int):
            raise ConfigurationError(
                f"{path}: the lead of exercise {name} needs difficulty= one of {', '.join(DIFFICULTIES)} and minutes="
            )
