"""Plausible wrong answers, one file per exercise: each has to be refused, with the message meant for it."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass

__all__ = ["Wrong", "wrong_answers"]


@dataclass(frozen=True)
class Wrong:
    """A wrong answer to ``exercise``: the text of its cell.

    ``says``: a phrase of the message that has to come. ``open``: the parts that it must not earn (default: all).
    """

    exercise: str
    text: str
    says: str
    open: tuple[str, ...] = ()


def wrong_answers() -> list[Wrong]:
    found = pkgutil.walk_packages(__path__, f"{__name__}.")
    names = sorted(module.name for module in found if not module.ispkg)
    return [wrong for name in names for wrong in importlib.import_module(name).WRONG]
