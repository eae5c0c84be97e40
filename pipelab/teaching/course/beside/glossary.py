"""``course/glossary.toml``: the words of the course, each with the cell that shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelab.errors import ConfigurationError
from pipelab.teaching.course.beside.faults import Fault, line_of, read_data
from pipelab.teaching.course.beside.places import find_place
from pipelab.teaching.course.source import Cell, Lesson

__all__ = ["GLOSSARY", "Glossary", "Term", "bold_terms", "glossary_faults", "glossary_page", "read_glossary"]

GLOSSARY = "glossary.toml"
_BOLD = re.compile(r"\*\*([^*\s][^*\n]*[^*\n:.\s])\*\*")  # a word: a single letter is a name


@dataclass(frozen=True)
class Term:
    """A word. ``also``: other forms of it; ``at``: the code cell that shows it (:func:`find_place`)."""

    term: str
    text: str
    at: tuple[str, ...]
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Glossary:
    """All terms. ``left_out``: what is bold on a page and is no term."""

    path: Path
    terms: tuple[Term, ...]
    left_out: tuple[str, ...]


def read_glossary(course: Path) -> Glossary:
    """Read the glossary of the course in this folder. Raises ConfigurationError."""
    path = course / GLOSSARY
    data = read_data(path, ("term", "left_out"))
    terms = []
    for entry in data["term"]:
        entry = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
        try:
            terms.append(Term(**entry))
        except TypeError as error:
            raise ConfigurationError(
                f"{path}: term {entry.get('term')!r}: {str(error).partition(' ')[2]}; a term has term, text, at, and "
                "may have also"
            ) from None
    return Glossary(path, tuple(terms), tuple(data["left_out"]))


def bold_terms(lesson: Lesson) -> Iterator[tuple[str, Cell, int]]:
    """What is bold on the lesson's page, in small letters, with its cell and its place in the cell's text."""
    for cell in lesson.page("lesson"):
        if cell.kind == "markdown":
            yield from ((found[1].lower(), cell, found.start()) for found in _BOLD.finditer(cell.text))


def glossary_faults(glossary: Glossary, lessons: Sequence[Lesson]) -> list[Fault]:
    """Entries that lead nowhere, words that have two, and terms in bold that have none."""
    faults, told = [], set[str]()
    for term in glossary.terms:
        line = line_of(glossary.path, f'term = "{term.term}"')
        try:
            find_place(lessons, term.at)
        except ConfigurationError as problem:
            faults.append(Fault(glossary.path, line, f"'{term.term}': {problem}"))
        forms = {form.lower() for form in (term.term, *term.also)}
        faults += [Fault(glossary.path, line, f"'{form}' has two entries; keep one") for form in sorted(forms & told)]
        told |= forms
    told |= set(glossary.left_out)
    for lesson in lessons:
        for word, cell, start in bold_terms(lesson):
            if word not in told:
                line = cell.line + cell.text[:start].count("\n")
                says = f"'{word}' is bold and has no entry in {GLOSSARY}; add one, or add it to left_out there"
                faults.append(Fault(lesson.path, line, says))
    return faults


def glossary_page(glossary: Glossary, lessons: Sequence[Lesson], root: str) -> str:
    """The glossary in Markdown, for a page with the course's folders in ``root``."""
    lines = [
        "# Words of the course",
        f"{len(glossary.terms)} terms. Each link leads to a cell that shows the thing.",
    ]
    for term in sorted(glossary.terms, key=lambda term: term.term.lower()):
        also = f" ({', '.join(term.also)})" if term.also else ""
        place = find_place(lessons, term.at)
        lines.append(f"**{term.term}**{also}: {term.text} [{place.words}]({place.link(root)})")
    return "\n\n".join(lines) + "\n"
