"""Lesson 5's exercises."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_05.best_m import EXERCISES, LESSON, NEAR, _least_squares, best_of, makespan

__all__ = ["EXERCISES", "LESSON", "NEAR", "_least_squares", "best_of", "makespan"]
