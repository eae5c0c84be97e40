"""Builds a lesson's three notebooks: ``notebooks/`` to read and run, ``exercises/`` to fill in, ``solutions/``.

A page depends on its source alone, so that building again changes nothing; lessons and solutions are executed when
their source has changed, and carry the source's digest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from pipelab.teaching.course.exam.drawn import find_exercise
from pipelab.teaching.course.source import Cell, Lesson
from pipelab.teaching.exercises.definition import Exercise

__all__ = [
    "FOLDERS",
    "KERNEL",
    "cell_id",
    "check_source",
    "exercise_minutes",
    "exercises_page",
    "lesson_page",
    "stub",
    "write_notebook",
]

FOLDERS = {"lesson": "notebooks", "exercises": "exercises", "solutions": "solutions"}
FRONT_END = ("tags", "jupyter")  # what a source says to JupyterLab, not to us
HINTS = ("a nudge", "the approach", "nearly the code")
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
_SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION\n?", re.MULTILINE | re.DOTALL)


def stub(answer: str, name: str) -> str:
    """An answer's text with its solution taken out: what the learner fills in. ``name`` where no ``def`` says one."""

    def emptied(match: re.Match[str]) -> str:
        around = re.findall(r"^def (\w+)", match.string[: match.start()], re.MULTILINE) or [name]
        return f'{match[1]}# YOUR CODE HERE\n{match[1]}raise NotWritten("{around[-1]}")\n'

    return _SOLUTION.sub(emptied, answer + "\n").rstrip("\n")


def exercise_minutes(lesson: Lesson) -> int:
    """Minutes of all its exercises, as their leads announce them."""
    return sum(int((cell.options or {}).get("minutes", 0)) for cell in lesson.cells if cell.role == "lead")


def check_source(exercise: Exercise) -> str:
    """The visible check cell of an exercise."""
    return f'check("{exercise.name}", {", ".join(exercise.answers)})'


def lesson_page(lesson: Lesson, lessons: Sequence[Lesson]) -> NotebookNode:
    """The lesson: what it is for, its cells, and where to go on."""
    cells = [_markdown(lesson, "head", _lesson_head(lesson, lessons))]
    for cell in lesson.page("lesson"):
        cells.append(_plain(lesson, "lesson", cell))
    cells.append(_markdown(lesson, "foot", _lesson_foot(lesson, lessons)))
    return _notebook(lesson, "lesson", f"{lesson.number} · {lesson.title}", cells)


def exercises_page(lesson: Lesson, *, solved: bool) -> NotebookNode:
    """The exercises to fill in, or (``solved``) complete, with what is said about each answer."""
    kind = "solutions" if solved else "exercises"
    cells = [_markdown(lesson, f"{kind}-head", _exercises_head(lesson, solved))]
    hints: list[Cell] = []
    pending: str = ""
    for cell in lesson.page("exercises"):
        if pending and (cell.role not in ("answer", "hint", "solution") or cell.exercise != pending):
            cells += _after_answer(lesson, pending, hints, solved)
            pending, hints = "", []
        if cell.role == "hint":
            hints.append(cell)
        elif cell.role == "solution":
            if solved:
                cells.append(_plain(lesson, kind, cell))
        elif cell.role == "answer":
            pending = cell.exercise
            cells.append(_answer(lesson, cell, solved))
        elif cell.role == "lead":
            cells.append(_lead(lesson, cell, kind))
        else:
            cells.append(_plain(lesson, kind, cell))
    if pending:
        cells += _after_answer(lesson, pending, hints, solved)
    title = f"{'Solutions' if solved else 'Exercises'} {lesson.number} · {lesson.title}"
    return _notebook(lesson, kind, title, cells)


def write_notebook(notebook: NotebookNode, path: Path) -> bool:
    """Write it unless it stands there already; returns whether anything changed."""
    text = nbformat.writes(notebook, version=4, indent=1) + "\n"
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return True


# ---- words --------------------------------------------------------------------------------------------------------


def _lesson_head(lesson: Lesson, lessons: Sequence[Lesson]) -> str:
    names = {other.number: other for other in lessons}
    goals = "\n".join(f"- {goal}" for goal in lesson.goals)
    links = ", ".join(
        f"[{n} {names[n].title}]({names[n].name}.ipynb)" if n in names else str(n) for n in lesson.builds_on
    )
    builds = f"Builds on {links}." if links else "You need to know PyTorch, and nothing about pipelines."
    exercises = (
        f" It has [exercises](../exercises/{lesson.name}.ipynb), about {exercise_minutes(lesson)} minutes more."
        if lesson.exercises
        else ""
    )
    return (
        f"# {lesson.number} · {lesson.title}\n\nAfter this lesson you can\n\n{goals}\n\n"
        f"About {lesson.minutes} minutes. {builds}{exercises}"
    )


def _lesson_foot(lesson: Lesson, lessons: Sequence[Lesson]) -> str:
    numbers = [other.number for other in lessons]
    following = next(iter(lessons[numbers.index(lesson.number) + 1 :]), None)
    parts = [f"**Now you:** [exercises of this lesson](../exercises/{lesson.name}.ipynb)."] if lesson.exercises else []
    if following is not None:
        parts.append(f"**Next lesson:** [{following.number} · {following.title}]({following.name}.ipynb).")
    return "---\n\n" + " ".join(parts)


def _exercises_head(lesson: Lesson, solved: bool) -> str:
    minutes = exercise_minutes(lesson)
    points = sum(find_exercise(name).points for name in lesson.exercises)
    back = f"[Lesson {lesson.number}](../notebooks/{lesson.name}.ipynb)"
    if solved:
        text = (
            f"{back} · [exercises](../exercises/{lesson.name}.ipynb)\n\nThese are complete answers. Other answers "
            "are right too, if the check says so."
        )
    else:
        text = (
            f"{back} · about {minutes} minutes · {points} points\n\n"
            "In each exercise you write one function or several, and a check follows. Replace the line that raises "
            "`NotWritten`, run the cell, then run the check. It names the smallest case that goes wrong. You can do "
            "the exercises in any order. Click a hint to open it. `make grade` in a terminal counts your points. It "
            "tries further cases, so a check that passes here is not yet the grade."
        )
    return f"# {'Solutions' if solved else 'Exercises'} {lesson.number} · {lesson.title}\n\n{text}"


def _lead(lesson: Lesson, cell: Cell, kind: str) -> NotebookNode:
    exercise, options = find_exercise(cell.exercise), cell.options or {}
    parts = ", ".join(f"{part} {points}" for part, points in exercise.parts.items())
    count = f"{exercise.points} point{'s' if exercise.points > 1 else ''}"
    facts = f"*{options['difficulty'].capitalize()} · {options['minutes']} minutes · {count}"
    facts += f": {parts}*" if len(exercise.parts) > 1 else "*"
    made = _markdown(lesson, f"{kind}-lead-{cell.exercise}", f"## {exercise.title}\n\n{cell.text.strip()}\n\n{facts}")
    made.metadata["pipelab"] = {"exercise": cell.exercise, "role": "lead"}
    return made


def _answer(lesson: Lesson, cell: Cell, solved: bool) -> NotebookNode:
    exercise = find_exercise(cell.exercise)
    kind = "solutions" if solved else "exercises"
    defined = [name for name in exercise.answers if re.search(rf"^def {name}\b", cell.text, re.MULTILINE)]
    made = _code(
        lesson,
        f"{kind}-answer-{cell.exercise}-{'-'.join(defined)}",
        cell.text.strip() if solved else stub(cell.text.strip(), defined[0] if defined else exercise.name),
    )
    made.metadata["nbgrader"] = _nbgrader("-".join([cell.exercise, *defined, "answer"]), solution=True)
    made.metadata["pipelab"] = {"exercise": cell.exercise, "role": "answer"}
    return made


def _after_answer(lesson: Lesson, name: str, hints: Sequence[Cell], solved: bool) -> list[NotebookNode]:
    if not hints:  # an examination has no help, and no check before it is graded
        return []
    exercise = find_exercise(name)
    kind = "solutions" if solved else "exercises"
    check = _code(lesson, f"{kind}-check-{name}", check_source(exercise))
    check.metadata["nbgrader"] = _nbgrader(f"{name}-check", solution=False, points=exercise.points)
    check.metadata["pipelab"] = {"exercise": name, "role": "check", "points": exercise.points}
    if solved:
        return [check]
    folded = "\n\n".join(
        f"<details><summary>Hint {k + 1}: {kind}</summary>\n\n{hint.text.strip()}\n\n</details>"
        for k, (kind, hint) in enumerate(zip(HINTS, hints, strict=True))
    )
    made = _markdown(lesson, f"hints-{name}", folded)
    made.metadata["pipelab"] = {"exercise": name, "role": "hints"}
    return [check, made]


# ---- cells --------------------------------------------------------------------------------------------------------


def _nbgrader(grade_id: str, *, solution: bool, points: int = 0) -> dict[str, object]:
    grade: dict[str, object] = {"points": points} if points else {}
    return {
        "grade": bool(points),
        "grade_id": grade_id,
        "locked": not solution,
        "schema_version": 3,
        "solution": solution,
        "task": False,
        **grade,
    }


def cell_id(lesson: Lesson, cell: Cell) -> str:
    """The id of a cell on the page of its lesson."""
    return _id(lesson, _seed("lesson", cell))


def _seed(kind: str, cell: Cell) -> str:
    return f"{kind}-{cell.role}-{cell.text}"


def _plain(lesson: Lesson, kind: str, cell: Cell) -> NotebookNode:
    seed = _seed(kind, cell)
    made = (_markdown if cell.kind == "markdown" else _code)(lesson, seed, cell.text.strip())
    if cell.role:
        made.metadata["pipelab"] = {"role": cell.role}
    for key in FRONT_END:
        if key in (cell.options or {}):
            made.metadata[key] = (cell.options or {})[key]
    return made


def _markdown(lesson: Lesson, seed: str, text: str) -> NotebookNode:
    return new_markdown_cell(text, id=_id(lesson, seed))


def _code(lesson: Lesson, seed: str, text: str) -> NotebookNode:
    return new_code_cell(text, id=_id(lesson, seed))


def _id(lesson: Lesson, seed: str) -> str:
    return hashlib.sha256(f"{lesson.name}/{seed}".encode()).hexdigest()[:12]


def _notebook(lesson: Lesson, kind: str, title: str, cells: list[NotebookNode]) -> NotebookNode:
    used: set[str] = set()
    for number, cell in enumerate(cells):
        if cell.id in used:  # the same text twice on a page
            cell.id = _id(lesson, f"{kind}-{cell.id}-{number}")
        used.add(cell.id)
    metadata = {
        "kernelspec": KERNEL,
        "language_info": {"name": "python"},
        "pipelab": {"kind": kind, "lesson": lesson.name, "source": lesson.digest},
        "title": title,
    }
    notebook = new_notebook(cells=cells, metadata=metadata)
    notebook.nbformat_minor = 5
    return notebook
