"""Lesson 2's exercises."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_02.accumulate import EXERCISES, least, serial_table

__all__ = ["EXERCISES", "least", "serial_table"]
