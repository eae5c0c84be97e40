"""``course/coverage.toml``: each topic of the texts that the course grew out of, and where a learner can run it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelab.errors import ConfigurationError
from pipelab.teaching.course.beside.faults import Fault, line_of, read_data
from pipelab.teaching.course.beside.places import find_place
from pipelab.teaching.course.source import Lesson

__all__ = ["COVERAGE", "Coverage", "Topic", "coverage_faults", "read_coverage"]

COVERAGE = "coverage.toml"


@dataclass(frozen=True)
class Topic:
    """A system, a technique, a worked example or a claim.

    ``of``: the texts that have it. ``at``: the code cell that runs it (:func:`find_place`). ``exercise`` asks for it,
    if any does. ``test``: a file, or ``file::function``. ``wrong``: a claim that the course shows to be wrong.
    """

    topic: str
    of: tuple[str, ...]
    at: tuple[str, ...]
    test: str
    exercise: str = ""
    wrong: bool = False


@dataclass(frozen=True)
class Coverage:
    """All topics. ``sources``: the texts, in words."""

    path: Path
    sources: Mapping[str, str]
    topics: tuple[Topic, ...]


def read_coverage(course: Path) -> Coverage:
    """Read the table of the course in this folder. Raises ConfigurationError."""
    path = course / COVERAGE
    data = read_data(path, ("sources", "topic"))
    topics = []
    for entry in data["topic"]:
        entry = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
        try:
            topics.append(Topic(**entry))
        except TypeError as error:
            raise ConfigurationError(
                f"{path}: topic {entry.get('topic')!r}: {str(error).partition(' ')[2]}; a topic has topic, of, at, "
                "test, and may have exercise and wrong"
            ) from None
    return Coverage(path, data["sources"], tuple(topics))


def coverage_faults(coverage: Coverage, lessons: Sequence[Lesson], root: Path) -> list[Fault]:
    """What in the table does not lead to something that runs; ``root`` is the repository."""
    used = {source for topic in coverage.topics for source in topic.of}
    found = [
        (source, f"no topic is of '{source}'; remove it or add its topics") for source in coverage.sources.keys() - used
    ]
    told: set[str] = set()
    for topic in coverage.topics:
        found += [(topic.topic, f"'{topic.topic}': {says}") for says in _of_topic(topic, coverage, lessons, root)]
        if topic.topic in told:
            found.append((topic.topic, f"'{topic.topic}' is there twice; keep one"))
        told.add(topic.topic)
    return sorted(Fault(coverage.path, line_of(coverage.path, place), says) for place, says in found)


def _of_topic(topic: Topic, coverage: Coverage, lessons: Sequence[Lesson], root: Path) -> Iterator[str]:
    for source in set(topic.of) - coverage.sources.keys():
        yield f"there is no source '{source}'; sources are {', '.join(coverage.sources)}"
    if not topic.of:
        yield "it names no source; add of"
    try:
        find_place(lessons, topic.at)
    except ConfigurationError as problem:
        yield str(problem)
    asked = {name for lesson in lessons for name in lesson.exercises}
    if topic.exercise and topic.exercise not in asked:
        yield f"no lesson has an exercise '{topic.exercise}'; name another, or none"
    file, _, function = topic.test.partition("::")
    if not file.startswith("tests/") or not (root / file).is_file():
        yield f"there is no test {file or '(nothing is named)'}; name a file in tests/"
    elif function and not re.search(rf"^def {re.escape(function)}\(", (root / file).read_text(encoding="utf-8"), re.M):
        yield f"{file} has no test {function}"
