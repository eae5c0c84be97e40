"""Lesson 4's exercises."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_04 import break_even, interleaved, interleaved_warmup, placement
from pipelab.teaching.exercises.lesson_04.depths import with_depths

__all__ = ["EXERCISES", "with_depths"]

EXERCISES = (placement.EXERCISE, interleaved_warmup.EXERCISE, break_even.EXERCISE, interleaved.EXERCISE)
