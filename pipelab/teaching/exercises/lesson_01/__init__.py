"""Lesson 1's exercises."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_01.cut_graph import EXERCISES

__all__ = ["EXERCISES"]
