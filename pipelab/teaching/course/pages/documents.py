"""Pages beside the notebooks that follow from the sources: README's table, the map, the glossary, the summaries."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelab.errors import ConfigurationError
from pipelab.teaching.course.beside.about import ABOUT, About, about_faults, read_about
from pipelab.teaching.course.beside.coverage import Coverage, Topic, coverage_faults, read_coverage
from pipelab.teaching.course.beside.faults import Fault
from pipelab.teaching.course.beside.glossary import Glossary, glossary_faults, glossary_page, read_glossary
from pipelab.teaching.course.beside.places import find_place
from pipelab.teaching.course.build import FOLDERS, exercise_minutes
from pipelab.teaching.course.pages.picture import ALT, course_map
from pipelab.teaching.course.pages.summaries import summary_page
from pipelab.teaching.course.source import Lesson
from pipelab.teaching.exercises import exercise as find_exercise

__all__ = ["CAN", "MAP", "Data", "data_faults", "documents", "read_data_of"]

MAP = "course.svg"
CAN = "After the course you can"
SUMMARIES = "docs/lessons"


@dataclass(frozen=True)
class Data:
    """What stands beside the sources, in files of its own."""

    about: About
    glossary: Glossary
    coverage: Coverage


def read_data_of(lessons: Sequence[Lesson]) -> Data | None:
    """What stands beside these lessons; None beside a course that has no such files."""
    course = lessons[0].path.parent
    if not (course / ABOUT).exists():
        return None
    return Data(read_about(course), read_glossary(course), read_coverage(course))


def documents(lessons: Sequence[Lesson]) -> dict[Path, str]:
    """Each such page and its text. Of README and of the timing sheet only the part between two marks is written.

    Raises ConfigurationError where a file beside the sources leads nowhere.
    """
    data, root = read_data_of(lessons), lessons[0].path.parent.parent
    if data is None:
        return {}
    if faults := _amiss(lessons, data):
        raise ConfigurationError(f"{faults[0]} ({len(faults)} in all: pipelab course check lists them)")
    docs = root / "docs"
    pages = {
        docs / MAP: course_map(lessons, data.coverage),
        docs / "course.md": _course_page(lessons, data),
        docs / "glossary.md": glossary_page(data.glossary, lessons, "../"),
        docs / "instructors.md": _put(docs / "instructors.md", "timing", "\n".join(_timing(lessons))),
        root / "README.md": _put(root / "README.md", "course", _readme(lessons, data)),
    }
    for lesson in lessons:
        if page := data.about.pages.get(lesson.name):
            pages[root / SUMMARIES / f"{lesson.name}.md"] = summary_page(lesson, lessons, page, root)
    return pages


def data_faults(lessons: Sequence[Lesson], data: Data) -> list[Fault]:
    """What is wrong in the files beside the sources, and which pages are not what these build."""
    if faults := _amiss(lessons, data):  # without these no page can be built
        return faults
    stale = [path for path, text in documents(lessons).items() if not path.exists() or path.read_text() != text]
    return [Fault(path, 1, "this is not what the sources build; make course") for path in stale]


def _amiss(lessons: Sequence[Lesson], data: Data) -> list[Fault]:
    faults = about_faults(data.about, lessons) + glossary_faults(data.glossary, lessons)
    return faults + coverage_faults(data.coverage, lessons, lessons[0].path.parent.parent)


def _put(path: Path, mark: str, text: str) -> str:
    """The file's text with ``text`` between ``<!-- mark … -->`` and the next ``<!-- end -->``."""
    old = path.read_text(encoding="utf-8")
    begin = re.search(rf"^<!-- {mark}\b.*-->\n", old, re.MULTILINE)
    end = old.find("<!-- end -->", begin.end()) if begin else -1
    if begin is None or end < 0:
        raise ConfigurationError(f"{path} has no lines <!-- {mark} --> and <!-- end -->; put them around what is built")
    return f"{old[: begin.end()]}{text}\n{old[end:]}"


def _can(data: Data) -> str:
    return f"{CAN}\n\n" + "\n".join(f"- {one}" for one in data.about.can)


def _readme(lessons: Sequence[Lesson], data: Data) -> str:
    hours = sum(lesson.minutes + exercise_minutes(lesson) for lesson in lessons) / 60
    rows = ["| | lesson | after it you can | minutes | |", "| --- | --- | --- | --- | --- |"]
    for lesson in lessons:
        page, more = data.about.pages.get(lesson.name), exercise_minutes(lesson)
        exercises = f"[exercise{'s' if len(lesson.exercises) > 1 else ''}]({FOLDERS['exercises']}/{lesson.name}.ipynb)"
        link, can = f"[{lesson.title}]({FOLDERS['lesson']}/{lesson.name}.ipynb)", page.can if page else ""
        minutes = f"{lesson.minutes} + {more}"
        rows.append(f"| {lesson.number} | {link} | {can} | {minutes} | {exercises if lesson.exercises else ''} |")
    return "\n\n".join(
        [
            _can(data),
            f"![{ALT}](docs/{MAP})",
            "\n".join(rows),
            f"The minutes are those of the lesson plus those of its exercises: about {hours:.0f} hours in all.",
            "[Where each topic is](docs/course.md) · [glossary](docs/glossary.md)",
        ]
    )


def _course_page(lessons: Sequence[Lesson], data: Data) -> str:
    parts = [
        "# The course at a glance",
        _can(data),
        f"![{ALT}]({MAP})",
        "An arc leads from a lesson to one that builds on it. Blue is the lesson, orange its exercises. The figures on "
        "the right count the topics of each text that the course grew out of. They follow as tables: each topic with "
        "the cell that runs it, and the exercise that asks for it.",
    ]
    for source, words in data.coverage.sources.items():
        topics = [topic for topic in data.coverage.topics if source in topic.of]
        parts.append(f"## {source.capitalize()}: {words}")
        rows = ["| topic | where it runs | exercise |", "| --- | --- | --- |"]
        rows += [f"| {topic.topic} | {_where(topic, lessons)} | {_asked(topic, lessons)} |" for topic in topics]
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"


def _where(topic: Topic, lessons: Sequence[Lesson]) -> str:
    place = find_place(lessons, topic.at)
    return f"[{place.words}]({place.link('../')})"


def _asked(topic: Topic, lessons: Sequence[Lesson]) -> str:
    lesson = next((one for one in lessons if topic.exercise in one.exercises), None)
    if lesson is None:
        return ""
    return f"[{find_exercise(topic.exercise).title}](../{FOLDERS['exercises']}/{lesson.name}.ipynb)"


def _timing(lessons: Sequence[Lesson]) -> Iterator[str]:
    """The timing sheet."""
    yield "| lesson | minutes | exercise | its name | difficulty | minutes | points |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for lesson in lessons:
        first = f"[{lesson.number} {lesson.title}](lessons/{lesson.name}.md) | {lesson.minutes}"
        for name in lesson.exercises:
            made, options = find_exercise(name), lesson.cells_of(name, "lead")[0].options or {}
            facts = f"{options['difficulty']} | {options['minutes']} | {made.points}"
            yield f"| {first} | {made.title} | `{name}` | {facts} |"
            first = " | "
        points = sum(find_exercise(name).points for name in lesson.exercises)
        yield f"| | | *together* | | | {exercise_minutes(lesson)} | {points} |"
