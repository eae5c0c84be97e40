"""Lesson 8's exercises: where to cut, on which devices, and how to see that a cut has become wrong."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_08 import balance, best_cut, read_monitor, unlike_cut

EXERCISES = (best_cut.EXERCISE, balance.EXERCISE, unlike_cut.EXERCISE, read_monitor.EXERCISE)
