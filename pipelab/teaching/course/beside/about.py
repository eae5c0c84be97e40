"""``course/lessons.toml``: what is said about each page outside of its source, by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelab.errors import ConfigurationError
from pipelab.teaching.course.beside.faults import Fault, line_of, read_data
from pipelab.teaching.course.rules.prose import MEAN, lengths, prose_faults, sentences
from pipelab.teaching.course.source import Lesson

__all__ = ["ABOUT", "About", "Page", "about_faults", "read_about"]

ABOUT = "lessons.toml"
SENTENCES = (2, 4)
"""How many the words for an instructor have: at least, at most."""


@dataclass(frozen=True)
class Page:
    """One page. ``can``: what a learner can do after it; ``moment``: what a class should see; ``teach``: advice.

    ``introduces``: regular expressions of words that no earlier page may use.
    """

    can: str
    moment: str
    teach: str
    introduces: tuple[str, ...] = ()


@dataclass(frozen=True)
class About:
    """``can``: what a learner can do after the course; ``pages`` by the names of the lessons."""

    path: Path
    can: tuple[str, ...]
    pages: Mapping[str, Page]


def read_about(course: Path) -> About:
    """What is said about the course in this folder. Raises ConfigurationError."""
    path, pages = course / ABOUT, {}
    data = read_data(path, ("can",))
    can = tuple(data.pop("can"))
    for name, entry in data.items():
        try:
            pages[name] = Page(**{**entry, "introduces": tuple(entry.get("introduces", ()))})
        except (TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{path}: [{name}]: {str(error).partition(' ')[2]}; a page has can, moment, teach, and may have "
                "introduces"
            ) from None
    return About(path, can, pages)


def about_faults(about: About, lessons: Sequence[Lesson]) -> list[Fault]:
    """Pages that nothing is said about, entries without a page, and words that are not plain."""
    path, names = about.path, [lesson.name for lesson in lessons]
    faults = [
        Fault(lesson.path, 1, f"[{lesson.name}] is missing in {ABOUT}; add can, moment and teach there")
        for lesson in lessons
        if lesson.name not in about.pages
    ]
    for name, entry in about.pages.items():
        line = line_of(path, f"[{name}]")
        says = [] if name in names else [f"there is no lesson {name}; remove its entry"]
        advice = sentences(entry.teach)
        least, most = SENTENCES
        if not least <= len(advice) <= most:
            says.append(f"[{name}] teach has {len(advice)} sentences; write {least} to {most}")
        said = [*advice, *sentences(entry.moment)]
        says += [f"[{name}] {fault}" for fault in prose_faults(said)]
        counted = lengths(said)
        if counted and sum(counted) / len(counted) > MEAN:
            says.append(f"[{name}] its sentences have more than {MEAN:g} words on average; shorten them")
        says += [
            f"[{name}] introduces: {word!r} is no regular expression" for word in entry.introduces if not _is(word)
        ]
        faults += [Fault(path, line, one) for one in says]
    return faults


def _is(expression: str) -> bool:
    try:
        re.compile(expression)
    except re.error:
        return False
    return True
