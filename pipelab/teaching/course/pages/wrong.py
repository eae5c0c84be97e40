"""Plausible wrong answers to an exercise, which the repository keeps among its tests, and what a check says to them."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Protocol

from pipelab.teaching.course.rules.prose import sentences, strings
from pipelab.teaching.exercises import exercise as find_exercise

__all__ = ["FOLDER", "Wrong", "told", "wrong_answers"]

_TOLD = (ast.Module, ast.FunctionDef, ast.ClassDef)  # what has a docstring, which is no message
FOLDER = "tests/teaching/exercises/wrong"


class Wrong(Protocol):
    """``says`` is a phrase of the message meant for it, ``open`` the parts that it must not earn (all if empty)."""

    exercise: str
    text: str
    says: str
    open: tuple[str, ...]


@cache
def wrong_answers(root: Path) -> tuple[Wrong, ...]:
    """Those of the repository ``root``; none where it has no tests."""
    if not (root / FOLDER).is_dir():
        return ()
    sys.path.insert(0, str(root))
    try:
        return tuple(importlib.import_module(FOLDER.replace("/", ".")).wrong_answers())
    finally:
        sys.path.remove(str(root))


def told(wrong: Wrong) -> str:
    """The sentence of the check's message that is meant for this answer, or its phrase if no sentence has it."""
    found = (one.removesuffix(" …") for one in _sentences(wrong.exercise) if wrong.says in one)
    return next(found, f"… {wrong.says} …")


@cache
def _sentences(exercise: str) -> tuple[str, ...]:
    return tuple(_said(exercise))


def _said(exercise: str) -> Iterator[str]:
    """Of messages: those of the exercise's own module, then of those beside it."""
    judge = find_exercise(exercise).judge
    own = Path(inspect.getfile(inspect.unwrap(getattr(judge, "func", judge))))
    for path in [own, *sorted(own.parent.glob("*.py"))]:
        source = path.read_text(encoding="utf-8")
        about = {
            ast.get_docstring(node, clean=False) for node in ast.walk(ast.parse(source)) if isinstance(node, _TOLD)
        }
        for text in strings(source, hole="…"):
            if text not in about:
                yield from sentences(text)
