"""Lesson 6's exercises."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_06 import version_number

__all__ = ["EXERCISES"]

EXERCISES = (version_number.EXERCISE,)
