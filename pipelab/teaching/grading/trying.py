"""Tries what the course says about its own exercises: solutions pass, stubs earn nothing, wrong answers are refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipelab.teaching.course.beside.faults import Fault
from pipelab.teaching.course.build import stub
from pipelab.teaching.course.pages.wrong import Wrong, wrong_answers
from pipelab.teaching.course.rules.exercises import run_answer, solution
from pipelab.teaching.course.source import Lesson
from pipelab.teaching.exercises import exercise as find_exercise
from pipelab.teaching.exercises.definition import Finding
from pipelab.teaching.grading.check import try_parts

__all__ = ["answer_faults", "refusals"]


def answer_faults(lesson: Lesson, root: Path) -> Iterator[Fault]:
    """Of each exercise of a lesson; ``root`` is the repository, which has the wrong answers."""
    for name in lesson.exercises:
        line = lesson.cells_of(name, "lead")[0].line
        text = solution(lesson, name)
        for part, finding in _tried(lesson, name, text, seed=1).items():
            if finding is not None:
                yield Fault(lesson.path, line, f"{name}: its solution is refused in '{part}': {finding.message}")
        for part, finding in _tried(lesson, name, stub(text, name), seed=1).items():
            if finding is None or "not written yet" not in finding.message:
                yield Fault(lesson.path, line, f"{name}: its stub earns '{part}', or fails in another way")
        for wrong in (one for one in wrong_answers(root) if one.exercise == name):
            yield from (Fault(lesson.path, line, f"{name}: {says}") for says in refusals(wrong, lesson))


def refusals(wrong: Wrong, lesson: Lesson) -> Iterator[str]:
    """What is amiss when a wrong answer is tried on the visible cases: a grade tries these too, and first."""
    refused = {part: finding for part, finding in _tried(lesson, wrong.exercise, wrong.text).items() if finding}
    earned = set(wrong.open or find_exercise(wrong.exercise).parts) - refused.keys()
    if earned:
        yield f"the wrong answer '{wrong.says}' earns {', '.join(sorted(earned))}; add a case that tells it apart"
    if not any(wrong.says in finding.message for finding in refused.values()):
        heard = next((finding.message for finding in refused.values()), "nothing")
        yield f"the wrong answer '{wrong.says}' is not told so; the check says: {heard}"
    for finding in refused.values():
        if finding.picture is not None and not finding.picture().alt:
            yield f"the picture for '{wrong.says}' has no words; give it an alternative text"


def _tried(lesson: Lesson, name: str, text: str, seed: int | None = None) -> dict[str, Finding | None]:
    return try_parts(find_exercise(name), run_answer(lesson, name, text), seed)
