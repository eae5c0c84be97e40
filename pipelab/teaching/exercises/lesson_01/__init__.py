"""Lesson 1's exercises: the first of its page 1 (what must fit), the others of its page 1b (cut by hand)."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_01 import cut_graph, must_fit, naive_table

EXERCISES = (must_fit.EXERCISE, cut_graph.EXERCISE, naive_table.EXERCISE)
