"""Exceptions that a notebook shows as one sentence instead of a wall of red."""

from __future__ import annotations

__all__ = ["CheckFailed", "NotWritten"]


class Sentence(Exception):
    """Shown by IPython as its message alone. nbval and scripts see an exception like any other."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class NotWritten(Sentence, NotImplementedError):
    """What the stub of an exercise raises."""

    def __init__(self, name: str = "") -> None:
        what = name or "This function"
        super().__init__(f"{what} is not written yet: replace the line that raises NotWritten.")


class CheckFailed(Sentence, AssertionError):
    """A visible check that did not pass; the message says why, in the field's words."""
