"""Lesson 9's exercises."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_09 import find_deadlock, node_boundary, order_on_the_wire, when_it_hides

__all__ = ["EXERCISES"]

EXERCISES = (
    when_it_hides.EXERCISE,
    order_on_the_wire.EXERCISE,
    find_deadlock.EXERCISE,
    node_boundary.EXERCISE,
)
