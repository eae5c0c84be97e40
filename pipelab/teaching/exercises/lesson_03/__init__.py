"""Lesson 3's exercises."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_03 import one_f_one_b, printed_timetable, warmup, what_fits

__all__ = ["EXERCISES"]

EXERCISES = (warmup.EXERCISE, one_f_one_b.EXERCISE, printed_timetable.EXERCISE, what_fits.EXERCISE)
