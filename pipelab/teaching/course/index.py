"""The learner's index page, ``work/index.ipynb``: the lessons, their minutes, what is done, points, the next step.

A notebook with one cell of text, because JupyterLab shows that as a page whose links open; a Markdown file opens in its
editor. So is ``work/glossary.ipynb``. They are written anew each time, never over a file that is something else. What
was graded is kept in the index's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nbformat.v4 import new_markdown_cell, new_notebook

from pipelab.teaching.course.beside.about import Page
from pipelab.teaching.course.beside.glossary import glossary_page
from pipelab.teaching.course.build import FOLDERS, KERNEL, exercise_minutes, write_notebook
from pipelab.teaching.course.pages.documents import CAN, MAP, Data, read_data_of
from pipelab.teaching.course.pages.picture import ALT, course_map
from pipelab.teaching.course.source import Lesson
from pipelab.teaching.course.work import INDEX, SUFFIX
from pipelab.teaching.exercises import exercise as find_exercise

__all__ = ["KIND", "write_index"]

KIND = "index"
WORDS = "glossary.ipynb"
GRADED = "Points are those of your last `make grade`."
NOT_GRADED = "Nothing has been graded yet."
Points = Mapping[str, float]
"""Exercise -> points, of what has been graded."""


def write_index(work: Path, lessons: Sequence[Lesson], graded: Points | None = None) -> bool:
    """Write the index of ``work``; ``graded`` is added to what it knows from earlier grades.

    Beside it go the map of the course and the glossary. Returns False, and writes nothing, where another file has its
    name.
    """
    path = work / INDEX
    known = _known(path, KIND)
    if known is None:
        return False
    data = read_data_of(lessons)
    points = {name: float(earned) for name, earned in {**known, **(graded or {})}.items()}
    if data is not None:
        (work / MAP).write_text(course_map(lessons, data.coverage), encoding="utf-8")
        if _known(work / WORDS, "glossary") is not None:
            _write(work / WORDS, "glossary", "Words of the course", glossary_page(data.glossary, lessons, ""), {})
    _write(path, KIND, "Your course", _page(lessons, points, data), points)
    return True


def _write(path: Path, kind: str, title: str, text: str, points: Points) -> None:
    metadata = {
        "kernelspec": KERNEL,
        "language_info": {"name": "python"},
        "pipelab": {"kind": kind, "points": points},
        "title": title,
    }
    notebook = new_notebook(cells=[new_markdown_cell(text, id=kind)], metadata=metadata)
    notebook.nbformat_minor = 5
    write_notebook(notebook, path)


def _known(path: Path, kind: str) -> dict[str, float] | None:
    """The points that the page at ``path`` knows of; None if it is not of this kind."""
    if not path.exists():
        return {}
    try:
        ours: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["metadata"]["pipelab"]
        return dict(ours["points"]) if ours["kind"] == kind else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _page(lessons: Sequence[Lesson], points: Points, data: Data | None) -> str:
    can = {lesson.name: "" for lesson in lessons} | {name: page.can for name, page in _pages(data).items()}
    rows = "\n".join(_row(lesson, can[lesson.name], points) for lesson in lessons)
    more = f"[Words of the course]({WORDS}) · `make exam` draws a mock examination"
    around = f"{CAN}\n\n{_list(data.about.can)}\n\n{more}\n\n" if data else ""
    picture = f"![{ALT}]({MAP})\n\n" if data else ""
    minutes = sum(lesson.minutes + exercise_minutes(lesson) for lesson in lessons)
    every = [name for lesson in lessons for name in lesson.exercises]
    return (
        "# Your course\n\n"
        f"**Next:** {_next(lessons, points)}\n\n{around}"
        "| | lesson | after it you can | exercises | minutes | points | done |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
        f"{rows}\n| | together | | | {minutes} | {_of(every, points)} | |\n\n{picture}"
        f"{GRADED if points else NOT_GRADED} Run `make grade` in a terminal. It counts your points, says what is wrong "
        "in each exercise, and updates this page. Close the page and open it again to see the new points.\n\n"
        "*`make lab` and `make grade` write this page, so your changes to it are lost. They never change your lessons "
        "and your answers.*"
    )


def _pages(data: Data | None) -> Mapping[str, Page]:
    return data.about.pages if data else {}


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _row(lesson: Lesson, can: str, points: Points) -> str:
    names, minutes = lesson.exercises, exercise_minutes(lesson)
    exercises = f"[{_count(len(names))}]({_exercises(lesson)})" if names else ""
    told = f"{lesson.minutes + minutes} ({lesson.minutes} + {minutes})" if names else f"{lesson.minutes}"
    full = sum(_full(name, points) for name in names)
    done = "" if not names else "**all**" if full == len(names) else f"{full} of {len(names)}"
    title = f"[{lesson.title}]({_lesson(lesson)})"
    return f"| {lesson.number} | {title} | {can} | {exercises} | {told} | {_of(names, points)} | {done} |"


def _next(lessons: Sequence[Lesson], points: Points) -> str:
    """The first lesson with points to earn: the lesson while nothing of it has points, else its first open exercise."""
    for lesson in lessons:
        todo = [name for name in lesson.exercises if not _full(name, points)]
        if todo and not any(points.get(name) for name in lesson.exercises):
            return (
                f"[lesson {lesson.number} · {lesson.title}]({_lesson(lesson)}), about {lesson.minutes} minutes. "
                f"Then [{_count(len(todo))}]({_exercises(lesson)}), about {exercise_minutes(lesson)} minutes."
            )
        if todo:
            title = find_exercise(todo[0]).title
            return (
                f"*{title}*, one of the [exercises of lesson {lesson.number}]({_exercises(lesson)}); "
                f"{_of(todo[:1], points)} points so far."
            )
    return "nothing. You have all the points."


def _full(name: str, points: Points) -> bool:
    return points.get(name, 0) >= find_exercise(name).points


def _of(names: Sequence[str], points: Points) -> str:
    possible = sum(find_exercise(name).points for name in names)
    return f"{sum(points.get(name, 0) for name in names):g} of {possible}" if names else ""


def _count(exercises: int) -> str:
    return f"{exercises} exercise{'s' if exercises > 1 else ''}"


def _lesson(lesson: Lesson) -> str:
    return f"{FOLDERS['lesson']}/{lesson.name}.ipynb"


def _exercises(lesson: Lesson) -> str:
    return f"{FOLDERS['exercises']}/{lesson.name}{SUFFIX}.ipynb"
