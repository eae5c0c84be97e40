"""A submitted notebook: which lesson it answers, and which of its cells answer which exercise.

Cells are found by their metadata, or if that is lost, by the names that they define. The cells from the first cell of
an exercise to that of the next belong to it. Check cells are the course's, never the submission's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from pipelab.teaching.course.build import check_source, exercises_page
from pipelab.teaching.course.exam.drawn import find_exercise, seed_of
from pipelab.teaching.course.exam.paper import paper
from pipelab.teaching.course.source import Lesson

__all__ = ["Answer", "Submission", "Template", "UnreadableError", "read_submission"]

LARGEST = 50_000_000  # bytes


class UnreadableError(Exception):
    """A file that is no notebook of this course, with the sentence that says so."""


@dataclass(frozen=True)
class Template:
    """The exercises page of a lesson, as the course gives it out: what submissions are held against."""

    lesson: Lesson
    page: NotebookNode

    @classmethod
    def of(cls, lesson: Lesson) -> Template:
        """Build it from the trusted source."""
        return cls(lesson, exercises_page(lesson, solved=False))

    @property
    def setup(self) -> tuple[str, ...]:
        """Sources of the cells that every exercise of the page stands on."""
        return tuple(
            cell.source
            for cell in self.page.cells
            if cell.cell_type == "code" and _pipelab(cell).get("role") == "setup"
        )

    @property
    def checked(self) -> bool:
        """Whether the page has check cells: an examination has none."""
        return any(_pipelab(cell).get("role") == "check" for cell in self.page.cells)

    def stubs(self, exercise: str) -> tuple[str, ...]:
        """Sources of the exercise's cells as they are given out."""
        return tuple(
            cell.source
            for cell in self.page.cells
            if cell.cell_type == "code" and _pipelab(cell) == {"exercise": exercise, "role": "answer"}
        )


@dataclass(frozen=True)
class Answer:
    """What a submission says to one exercise: sources of cells to run, in order, and what was odd about them."""

    exercise: str
    cells: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def missing(self) -> bool:
        """Whether there is nothing to run."""
        return not self.cells


@dataclass(frozen=True)
class Submission:
    """One notebook, taken apart."""

    path: Path
    lesson: Lesson
    trusted: tuple[str, ...]
    """The setup cells of the page, as the course has them."""
    setup: tuple[str, ...]
    """What it adds at its top: helpers and imports of its own."""
    answers: Mapping[str, Answer]
    untouched: frozenset[str]
    """Exercises whose cells are still the stubs that were given out."""
    cells: tuple[str, ...] = ()
    """All of its code cells but checks, in order."""

    def defining(self, name: str, beside: Sequence[str]) -> str | None:
        """The last cell that defines ``name`` and is not among ``beside``: what an exercise leans on elsewhere."""
        found = [text for text in self.cells if text not in beside and (_defines(text, [name]) or _imports(text, name))]
        return found[-1] if found else None


def read_submission(path: Path, templates: Sequence[Template]) -> Submission:
    """Read a notebook and take it apart. Raises UnreadableError."""
    notebook = _read(path)
    template = _template(notebook, path, templates)
    codes = [cell for cell in notebook.cells if cell.get("cell_type") == "code"]
    regions, top = _regions(notebook.cells, template)
    answers, untouched = {}, set()
    for name in template.lesson.exercises:
        answer = _answer(name, regions.get(name, []), codes, template)
        answers[name] = answer
        if _same(answer.cells, template.stubs(name)):
            untouched.add(name)
    names = [name for exercise in template.lesson.exercises for name in find_exercise(exercise).answers]
    own = [_source(cell) for cell in top if not any(_is_check(cell, name) for name in template.lesson.exercises)]
    extra = tuple(text for text in own if not _is_stub(text, template.setup) and not _defines(text, names))
    every = [_source(c) for c in codes if not any(_is_check(c, name) for name in template.lesson.exercises)]
    return Submission(path, template.lesson, template.setup, extra, answers, frozenset(untouched), tuple(every))


def _read(path: Path) -> NotebookNode:
    try:
        if not path.is_file():
            raise UnreadableError("not a file: hand in the .ipynb file that JupyterLab saves")
        if path.stat().st_size > LARGEST:
            raise UnreadableError(f"larger than {LARGEST // 1_000_000} MB: clear its outputs and hand it in again")
        notebook = nbformat.reads(path.read_text(encoding="utf-8-sig", errors="replace"), as_version=4)
        cells = notebook.cells
        if not isinstance(cells, list) or not all(isinstance(_source(cell), str) for cell in cells):
            raise UnreadableError("its cells cannot be read: open it in JupyterLab and save it again")
    except UnreadableError:
        raise
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror}") from None
    except Exception:  # noqa: BLE001 - a file may hold anything
        raise UnreadableError("not a notebook: hand in the .ipynb file that JupyterLab saves") from None
    return notebook


def _source(cell: Any) -> str:
    """A cell's text; half a surrogate pair, which JSON can hold and no file can, becomes a question mark."""
    source = cell.get("source", "")
    text = "".join(source) if isinstance(source, list) else source
    return text.encode("utf-8", "replace").decode() if isinstance(text, str) else text


def _pipelab(cell: Any) -> dict[str, Any]:
    found = cell.get("metadata", {}).get("pipelab", {})
    return found if isinstance(found, dict) else {}


def _template(notebook: NotebookNode, path: Path, templates: Sequence[Template]) -> Template:
    """Which lesson: by what the notebook says of itself, else by the exercises in it, else by its file's name."""
    said = notebook.metadata.get("pipelab", {})
    claimed = said.get("lesson") if isinstance(said, dict) else None
    for template in templates:
        if template.lesson.name == claimed:
            if said.get("kind") == "lesson":
                raise UnreadableError(f"this is the lesson, not its exercises: grade exercises/{claimed}.ipynb")
            return template
    names = [_pipelab(cell).get("exercise") for cell in notebook.cells]
    said_so = re.search(r"exam_\d{1,9}(?!\d)", path.stem)
    candidates = (claimed, *names, said_so[0] if said_so else None)
    seed = next((found for found in map(seed_of, candidates) if found is not None), None)
    if seed is not None:
        return Template.of(paper(seed))
    sources = [_source(cell) for cell in notebook.cells if cell.get("cell_type") == "code"]

    def score(template: Template) -> int:
        defined = sum(_defines(text, find_exercise(e).answers) for e in template.lesson.exercises for text in sources)
        return defined + sum(name in template.lesson.exercises for name in names)

    best = max(templates, key=score)
    if score(best):
        return best
    for template in templates:
        if template.lesson.name in path.stem:
            return template
    raise UnreadableError("it contains no exercise of this course: is it another notebook?")


def _regions(cells: Sequence[Any], template: Template) -> tuple[dict[str, list[Any]], list[Any]]:
    """The code cells of each exercise, which begins with its lead, and those that stand above all of them."""
    regions: dict[str, list[Any]] = {}
    top: list[Any] = []
    current = None
    for cell in cells:
        name = _pipelab(cell).get("exercise")
        current = name if name in template.lesson.exercises else current
        if cell.get("cell_type") == "code":
            (top if current is None else regions.setdefault(current, [])).append(cell)
    return regions, top


def _answer(name: str, region: Sequence[Any], codes: Sequence[Any], template: Template) -> Answer:
    exercise, notes = find_exercise(name), []
    check = check_source(exercise)
    cells = [_source(cell) for cell in region if not _is_check(cell, exercise.name)]
    checks = [_source(cell) for cell in region if _is_check(cell, exercise.name)]
    stubs = template.stubs(name)
    if all(_is_stub(text, stubs) or not _defines(text, exercise.answers) for text in cells):
        written = [_source(cell) for cell in codes if not _is_check(cell, name)]
        written = [text for text in written if _defines(text, exercise.answers) and not _is_stub(text, stubs)]
        if written:
            cells = written
            notes.append("its answer was found by name elsewhere in the notebook")
        elif not any(map(_does_something, cells)):
            cells = []
    if not checks and template.checked:
        notes.append("its check cell was missing and was put back")
    elif checks and not any(_same([text], [check]) for text in checks):
        notes.append("its check cell was changed; the course's own was used")
    filled = [text for text in cells if not _is_stub(text, stubs)]
    if any(_defines(text, exercise.answers) for text in filled):
        kept = [text for text in cells if text in filled or not _covered(text, filled, exercise.answers)]
        if len(kept) < len(cells):
            notes.append("an unfilled copy of its cell was left out")
        cells = kept
    return Answer(name, tuple(cells), tuple(notes))


def _covered(text: str, filled: Sequence[str], names: Sequence[str]) -> bool:
    """Whether what an unfilled cell defines is defined by a filled one as well."""
    own = [name for name in names if _defines(text, [name])]
    return all(any(_defines(other, [name]) for other in filled) for name in own)


def _is_check(cell: Any, name: str) -> bool:
    return _pipelab(cell).get("role") == "check" or bool(
        re.match(rf"\s*check\(\s*[\"']{re.escape(name)}[\"']", _source(cell))
    )


def _defines(text: str, names: Sequence[str]) -> bool:
    every = "|".join(map(re.escape, names))
    return bool(
        re.search(rf"^(?:async\s+def|def|class)\s+(?:{every})\b|^(?:{every})\s*(?::[^=\n]+)?=", text, re.MULTILINE)
    )


def _does_something(text: str) -> bool:
    return any(line.strip() and not line.strip().startswith("#") for line in text.splitlines())


def _is_stub(text: str, stubs: Sequence[str]) -> bool:
    return any(_same([text], [stub]) for stub in stubs)


def _imports(text: str, name: str) -> bool:
    return bool(re.search(rf"^(?:from\s.*\s)?import\s.*\b{re.escape(name)}\b", text, re.MULTILINE))


def _same(mine: Sequence[str], theirs: Sequence[str]) -> bool:
    """Equal but for blanks at line ends and empty lines."""

    def settled(texts: Sequence[str]) -> list[list[str]]:
        return [[line.rstrip() for line in text.splitlines() if line.strip()] for text in texts]

    return settled(mine) == settled(theirs)
