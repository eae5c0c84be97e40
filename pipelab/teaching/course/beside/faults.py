"""What is wrong in a file of the course: where, and what to do about it."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelab.errors import ConfigurationError

__all__ = ["Fault", "line_of", "read_data"]


@dataclass(frozen=True, order=True)
class Fault:
    """A broken rule. ``says`` is what is wrong and what to do."""

    path: Path
    line: int
    says: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.says}"


def read_data(path: Path, needed: Sequence[str] = ()) -> dict[str, Any]:
    """A TOML file beside the sources. Raises ConfigurationError that names the file and what is wrong in it."""
    if not path.exists():
        raise ConfigurationError(f"there is no {path}; it belongs beside the lessons")
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: this is not TOML: {error}") from None
    lacking = [key for key in needed if key not in found]
    if lacking:
        raise ConfigurationError(f"{path} has no {', '.join(lacking)}")
    return found


def line_of(path: Path, text: str) -> int:
    """The first line of a file that holds ``text``; 1 where none does."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((number for number, line in enumerate(lines, 1) if text in line), 1)
