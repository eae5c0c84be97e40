"""Lesson 7's exercises."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_07 import (
    bound_and_found,
    fastest_that_fits,
    fill_the_bubble,
    split_linear,
    write_zb_h1,
)

__all__ = ["EXERCISES"]

EXERCISES = (
    split_linear.EXERCISE,
    fill_the_bubble.EXERCISE,
    write_zb_h1.EXERCISE,
    fastest_that_fits.EXERCISE,
    bound_and_found.EXERCISE,
)
