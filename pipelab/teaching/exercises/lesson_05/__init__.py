"""Lesson 5's exercises: the first three of its page 5 (choosing m), the others of its page 5b (the memory wall)."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_05 import best_m, defend, reading, slices, straight_line

EXERCISES = (straight_line.EXERCISE, best_m.EXERCISE, slices.EXERCISE, reading.EXERCISE, defend.EXERCISE)
