"""Lesson 12's exercises: six claims that the learner settles."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_12 import (
    best_size,
    busier,
    held_by_rule,
    idle_time,
    mean_gradient,
    recompute_price,
)

__all__ = ["EXERCISES"]

EXERCISES = (
    busier.EXERCISE,
    idle_time.EXERCISE,
    held_by_rule.EXERCISE,
    recompute_price.EXERCISE,
    mean_gradient.EXERCISE,
    best_size.EXERCISE,
)
