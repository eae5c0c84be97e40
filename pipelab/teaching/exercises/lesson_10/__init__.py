"""Lesson 10's exercises."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_10 import (
    bytes_per_step,
    choose_shape,
    ranks_and_groups,
    split_layers,
    uneven_replicas,
)

__all__ = ["EXERCISES"]

EXERCISES = (
    ranks_and_groups.EXERCISE,
    bytes_per_step.EXERCISE,
    uneven_replicas.EXERCISE,
    split_layers.EXERCISE,
    choose_shape.EXERCISE,
)
