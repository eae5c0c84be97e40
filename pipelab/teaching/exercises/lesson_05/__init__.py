"""Lesson 5's exercises."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_05 import best_m, defend, reading, slices, straight_line

EXERCISES = (straight_line.EXERCISE, best_m.EXERCISE, reading.EXERCISE, slices.EXERCISE, defend.EXERCISE)
