"""Lesson 4's exercises."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_04 import break_even, interleaved, interleaved_warmup, placement

__all__ = ["EXERCISES"]

EXERCISES = (placement.EXERCISE, interleaved_warmup.EXERCISE, break_even.EXERCISE, interleaved.EXERCISE)
