"""Rules of exercises: stubs, cases, what leaks, and whether solutions pass and wrong answers are refused."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelab.teaching.course.beside.faults import Fault
from pipelab.teaching.course.build import exercises_page
from pipelab.teaching.course.pages.wrong import FOLDER, wrong_answers
from pipelab.teaching.course.source import Cell, Lesson
from pipelab.teaching.exercises import exercise as find_exercise

__all__ = ["LEAST", "exercise_faults", "leaks", "run_answer", "solution", "written"]

LEAST = 4
"""Wrong answers that an exercise keeps, at least."""


def exercise_faults(lesson: Lesson, root: Path) -> list[Fault]:
    """What is wrong with a lesson's exercises, without running them; ``root``: the repository, with wrong answers."""
    found: list[tuple[Cell | None, str]] = []
    found += [(None, f"the exercises show a line of a solution: '{one}'; hide it") for one in leaks(lesson)]
    for name in lesson.exercises:
        lead = lesson.cells_of(name, "lead")[0]
        found += [(cell, f"{name}: {says}") for cell, says in written(lesson, name)]
        sizes = [
            (case.given["p"], case.given["m"])
            for case in find_exercise(name).cases(seed=3)
            if {"p", "m"} <= set(case.given)
        ]
        kinds = {"m < p": any(m < p for p, m in sizes), "m = p": any(m == p for p, m in sizes)}
        kinds["m > p"] = any(m > p for p, m in sizes)
        if sizes and not all(kinds.values()):
            missing = ", ".join(kind for kind, there in kinds.items() if not there)
            found.append((lead, f"{name}: no case has {missing}; add one"))
        count = sum(wrong.exercise == name for wrong in wrong_answers(root))
        if (root / "tests").is_dir() and count < LEAST:
            found.append((lead, f"{name}: {count} wrong answers in {FOLDER}; keep at least {LEAST}"))
    return sorted(Fault(lesson.path, cell.line if cell else 1, says) for cell, says in found)


def written(lesson: Lesson, name: str) -> Iterator[tuple[Cell, str]]:
    """What the stub of an exercise lacks: types, a docstring, an example."""
    for cell in lesson.cells_of(name, "answer"):
        for node in ast.parse(cell.text).body:
            if not isinstance(node, ast.FunctionDef) or node.name not in find_exercise(name).answers:
                continue
            if node.returns is None or any(argument.annotation is None for argument in node.args.args):
                yield cell, f"{node.name} has an argument or a result without a type; add it"
            if ">>> " not in (ast.get_docstring(node) or ""):
                yield cell, f"{node.name} has no example in its docstring; add a line >>> {node.name}(...)"
    defined = {
        node.name
        for cell in lesson.cells_of(name, "answer")
        for node in ast.walk(ast.parse(cell.text))
        if isinstance(node, ast.FunctionDef)
    }
    for answer in set(find_exercise(name).answers) - defined:
        yield lesson.cells_of(name, "lead")[0], f"no answer cell defines {answer}; write its stub"


def leaks(lesson: Lesson) -> set[str]:
    """Lines of solutions, of four words or more, that the exercises show."""
    if not lesson.exercises:
        return set()
    solved = {line for cell in lesson.cells if cell.role == "answer" for line in _solution_lines(cell.text)}
    page = "\n".join(cell.source for cell in exercises_page(lesson, solved=False).cells)
    shown = {_normalised(line) for line in page.splitlines()}
    shown |= {_normalised(part) for line in page.splitlines() for part in re.findall(r"`([^`]+)`", line)}
    return {line for line in solved if len(line.split()) >= 4} & shown


def _solution_lines(text: str) -> Iterator[str]:
    for block in re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", text, re.DOTALL):
        yield from map(_normalised, block.splitlines())


def _normalised(line: str) -> str:
    """A line's tokens, without comments and spacing."""
    try:
        tokens = tokenize.generate_tokens(io.StringIO(line.strip()).readline)
        return " ".join(t.string for t in tokens if t.type != tokenize.COMMENT and t.string.strip())
    except (tokenize.TokenError, SyntaxError):
        return " ".join(line.split())


# ---- running them ----------------------------------------------------------------------------------------------------


def solution(lesson: Lesson, name: str) -> str:
    """The text of an exercise's answer, solved."""
    return "\n\n".join(cell.text for cell in lesson.cells_of(name, "answer"))


def run_answer(lesson: Lesson, name: str, text: str) -> dict[str, Any]:
    """What an exercise's cell leaves behind the setup of its page, as the answers that a check is given."""
    space: dict[str, Any] = {"__name__": "__main__"}
    for cell in lesson.page("exercises"):
        if cell.role == "setup":
            exec(cell.text, space)
    exec(text, space)
    return {answer: space[answer] for answer in find_exercise(name).answers if answer in space}
