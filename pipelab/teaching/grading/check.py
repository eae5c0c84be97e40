"""The visible check under each exercise."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
from collections.abc import Mapping
from typing import Any

from pipelab.errors import ConfigurationError
from pipelab.teaching.exercises.definition import Exercise, Finding
from pipelab.teaching.grading import progress
from pipelab.teaching.grading.asking import ask_case
from pipelab.teaching.grading.stub import CheckFailed, NotWritten

__all__ = ["CheckFailed", "NotWritten", "check", "try_parts"]


def check(name: str, *answers: Any) -> float | None:
    """Try the visible cases of exercise ``name`` on your functions, the smallest first.

    ``answers`` are the functions that the exercise asks for, in its order. Raises CheckFailed with the smallest
    counterexample and why it is wrong, after showing a picture of the place where that helps; else says that the
    visible checks passed. A grade tries other cases too.

    Inside nbgrader's autograde it tries a grade's cases and returns points, so that parts count there.
    """
    from pipelab.teaching.exercises import exercise as find

    exercise = find(name)
    if len(answers) != len(exercise.answers):
        wanted = ", ".join(exercise.answers)
        raise ConfigurationError(f'check takes the exercise and its functions: check("{name}", {wanted})')
    given = dict(zip(exercise.answers, answers, strict=True))
    counting = os.environ.get("NBGRADER_EXECUTION") == "autograde"
    # nbgrader gives no points to a cell that writes to stderr: a warning of a library is no wrong answer.
    with contextlib.redirect_stderr(io.StringIO()) if counting else contextlib.nullcontext():
        found = try_parts(exercise, given, secrets.randbits(32) if counting else None, told=not counting)
    failed = {part: finding for part, finding in found.items() if finding is not None}
    passed = [part for part in found if part not in failed]
    if not failed:
        _show(f"Visible checks passed: {', '.join(passed)}.")
    elif not (counting and passed):
        first = next(iter(failed.values()))
        if first.picture is not None:
            _display(first.picture())
        raise CheckFailed(_failure(exercise, first, passed, list(failed)))
    if counting:
        return float(sum(exercise.parts[part] for part in passed))
    return None


def try_parts(
    exercise: Exercise, answers: Mapping[str, Any], seed: int | None = None, *, told: bool = False
) -> dict[str, Finding | None]:
    """The first finding of each part, None where all its cases pass. ``told``: a notebook says which it is trying."""
    found: dict[str, Finding | None] = dict.fromkeys(exercise.parts)
    cases = exercise.cases(seed)
    for case in progress.told(cases) if told else cases:
        if found[case.part] is None:
            found[case.part] = exercise.verdict(case, ask_case(exercise, answers, case))
    return found


def _failure(exercise: Exercise, finding: Finding, passed: list[str], failed: list[str]) -> str:
    lines = [f"Not yet. {finding.message}"]
    if len(exercise.parts) > 1:
        state = [f"passed: {', '.join(passed)}"] if passed else []
        state.append(f"still open: {', '.join(failed)}")
        lines.append(f"({'; '.join(state)})")
    return "\n".join(lines)


def _show(text: str) -> None:
    print(text)  # noqa: T201


def _display(picture: Any) -> None:
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        return
    if get_ipython() is not None:
        display(picture)
