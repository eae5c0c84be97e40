"""Lesson 11's exercises."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_11 import find_bottleneck, order_frames, parareal_bound

__all__ = ["EXERCISES"]

EXERCISES = (find_bottleneck.EXERCISE, order_frames.EXERCISE, parareal_bound.EXERCISE)
