"""A page per lesson for whoever teaches it: from the lesson's source, its exercises, and a few words by hand."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipelab.teaching.claims.registry import CLAIMS
from pipelab.teaching.course.beside.about import Page
from pipelab.teaching.course.build import FOLDERS, exercise_minutes
from pipelab.teaching.course.pages.wrong import told, wrong_answers
from pipelab.teaching.course.source import Lesson
from pipelab.teaching.exercises import exercise as find_exercise

__all__ = ["questions", "summary_page"]

MOST = 6
"""Wrong answers that are listed for an exercise: a page is one page."""


def questions(lesson: Lesson) -> Iterator[str]:
    """What the lesson's page asks for a prediction, in order; … where the page puts in a figure."""
    known: dict[str, str] = {}
    for cell in lesson.page("lesson"):
        if cell.kind != "code":
            continue
        for node in ast.parse(cell.text).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                known[node.targets[0].id] = _words(node.value, known)
            for call in ast.walk(node):
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "predict":
                    yield _words(call.args[1], known)
                elif isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "ask":  # of verdicts
                    yield from (
                        CLAIMS[str(name.value)].question for name in call.args if isinstance(name, ast.Constant)
                    )


def _words(node: ast.expr, known: dict[str, str]) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return known.get(node.id, "") if isinstance(node, ast.Name) else ""


def summary_page(lesson: Lesson, lessons: Sequence[Lesson], page: Page, root: Path) -> str:
    """The page in Markdown, for ``docs/lessons/``; ``root`` is the repository, where the wrong answers are."""
    up, minutes = "../..", exercise_minutes(lesson)
    names = {other.number: other for other in lessons}
    links = [f"[lesson]({up}/{FOLDERS['lesson']}/{lesson.name}.ipynb)"]
    if lesson.exercises:
        links += [f"[{kind}]({up}/{FOLDERS[kind]}/{lesson.name}.ipynb)" for kind in ("exercises", "solutions")]
    builds = ", ".join(f"[{n}]({names[n].name}.md)" for n in lesson.builds_on if n in names)
    more = f", and {minutes} for the exercises" if minutes else ""
    goals = "\n".join(f"- {goal}" for goal in lesson.goals)
    asked = "\n".join(f"- {question}" for question in questions(lesson))
    parts = [
        f"# {lesson.number} · {lesson.title}: for the instructor",
        " · ".join(links),
        f"After it learners can\n\n{goals}",
        f"**Time:** {lesson.minutes} minutes{more}." + (f" **Builds on** lessons {builds}." if builds else ""),
        f"**The moment to aim for:** {page.moment}",
        page.teach,
        f"## Questions to ask before the cell is run\n\n{asked}",
    ]
    if lesson.exercises:
        parts.append("## Exercises\n\n" + _exercises(lesson))
        parts += filter(None, (_wrong(name, root) for name in lesson.exercises))
    return "\n\n".join(parts) + "\n"


def _exercises(lesson: Lesson) -> str:
    rows = ["| exercise | difficulty | minutes | points |", "| --- | --- | --- | --- |"]
    for name in lesson.exercises:
        made, options = find_exercise(name), lesson.cells_of(name, "lead")[0].options or {}
        parts = ", ".join(f"{part} {points}" for part, points in made.parts.items()) if len(made.parts) > 1 else ""
        points = f"{made.points}" + (f" ({parts})" if parts else "")
        rows.append(f"| {made.title} | {options['difficulty']} | {options['minutes']} | {points} |")
    return "\n".join(rows)


def _wrong(name: str, root: Path) -> str:
    """What the check says to the usual mistakes in an exercise."""
    said = dict.fromkeys(told(wrong) for wrong in wrong_answers(root) if wrong.exercise == name)
    if not said:
        return ""
    lines = "\n".join(f"- {one}" for one in list(said)[:MOST])
    return f"Common wrong answers to *{find_exercise(name).title}*, as the check explains them:\n\n{lines}"
