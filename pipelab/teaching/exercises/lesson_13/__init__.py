"""Lesson 13's exercises."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_13 import half_the_memory, reach_1f1b, slow_link

__all__ = ["EXERCISES"]

EXERCISES = (reach_1f1b.EXERCISE, half_the_memory.EXERCISE, slow_link.EXERCISE)
