"""Lesson 3's exercises."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_03.one_f_one_b import EXERCISES, with_warmups

__all__ = ["EXERCISES", "with_warmups"]
