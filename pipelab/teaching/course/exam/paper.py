"""An examination as a notebook to fill in, and as a key: complete, with the reason for each answer."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

from nbformat import NotebookNode

from pipelab.errors import ConfigurationError
from pipelab.teaching.course.build import exercises_page, write_notebook
from pipelab.teaching.course.exam.drawn import Drawn, drawn, exam_name
from pipelab.teaching.course.source import Cell, Lesson

__all__ = ["exam_page", "paper", "write_exam"]

RULES = (
    "Each question asks for one function that returns the answer. Replace the line that raises `NotWritten`. You may "
    "compute in the function, with Python alone: pipelab's schedules and simulator do not answer while it is graded. "
    "There is no check, so look at your numbers twice. `pipelab grade` counts the points, and explains wrong answers."
)
_DIFFICULTY = {1: "easy", 2: "easy", 3: "medium"}


@cache
def paper(seed: int) -> Lesson:
    """The examination of a seed, as the builder and the grader take it."""
    cells = [Cell("code", "from pipelab.teaching import NotWritten", "exercises", role="setup")]
    for one in drawn(seed):
        cells += _cells(one)
    text = json.dumps([[cell.kind, cell.text] for cell in cells])
    return Lesson(
        name=exam_name(seed),
        number="exam",
        title=f"Mock examination {seed}",
        minutes=sum(one.question.minutes for one in drawn(seed)),
        builds_on=(),
        goals=(),
        cells=tuple(cells),
        digest=hashlib.sha256(text.encode()).hexdigest()[:16],
        path=Path(f"{exam_name(seed)}.py"),
    )


def _cells(one: Drawn) -> list[Cell]:
    question, given, name = one.question, one.given, one.exercise.name
    truth = question.truth(given)
    kind = "str" if isinstance(truth, str) else "int" if question.digits is None else "float"
    value = repr(truth) if isinstance(truth, str) else question.shown(truth)
    answer = (
        f"def answer_{one.number}() -> {kind}:\n"
        f'    """{question.form(given)}."""\n'
        f"    ### BEGIN SOLUTION\n    return {value}\n    ### END SOLUTION"
    )
    options = {"difficulty": _DIFFICULTY[question.points], "minutes": question.minutes}
    return [
        Cell("markdown", question.ask(given), "exercises", "lead", name, options),
        Cell("code", answer, "exercises", "answer", name),
        Cell("markdown", f"{question.shown(truth)}: {question.why(given)}", "exercises", "solution"),
    ]


def exam_page(seed: int, *, solved: bool = False) -> NotebookNode:
    """The page to fill in, or (``solved``) the key."""
    page = exercises_page(paper(seed), solved=solved)
    points = sum(one.question.points for one in drawn(seed))
    about = f"{len(drawn(seed))} questions · about {paper(seed).minutes} minutes · {points} points"
    said = "The answers, each with its reason." if solved else RULES
    kind = "Key of mock examination" if solved else "Mock examination"
    page.cells[0].source = f"# {kind} {seed}\n\n{about}\n\n{said}"
    page.metadata["title"] = f"{kind} {seed}"
    return page


def write_exam(seed: int, path: Path, *, solved: bool = False) -> None:
    """Write it, never over a file. Raises ConfigurationError."""
    if path.exists():
        raise ConfigurationError(f"there is already {path}; rename it, or draw another with --seed {seed + 1}")
    write_notebook(exam_page(seed, solved=solved), path)
