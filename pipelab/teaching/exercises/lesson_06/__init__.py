"""Lesson 6's exercises."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_06 import delayed_update, stash, two_bw, under_a_limit, version_number

__all__ = ["EXERCISES"]

EXERCISES = (version_number.EXERCISE, stash.EXERCISE, delayed_update.EXERCISE, two_bw.EXERCISE, under_a_limit.EXERCISE)
