"""The exercises: one folder per lesson, which lists them in ``EXERCISES``, and in it one file per exercise."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from pipelab.errors import ConfigurationError
from pipelab.teaching.exercises.definition import Exercise

__all__ = ["exercise", "exercises"]


@cache
def exercises() -> Mapping[str, Exercise]:
    """All exercises by name, in the order of the lessons."""
    lessons = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)
    found = [made for name in lessons for made in importlib.import_module(f"{__name__}.{name}").EXERCISES]
    return {made.name: made for made in found}


def exercise(name: str) -> Exercise:
    """The exercise ``name``. Raises ConfigurationError, which offers the nearest name."""
    known = exercises()
    if name in known:
        return known[name]
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.3)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    raise ConfigurationError(f"there is no exercise '{name}'{hint}")
