"""Lesson 0's exercise."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_00 import utilisation

EXERCISES = (utilisation.EXERCISE,)
