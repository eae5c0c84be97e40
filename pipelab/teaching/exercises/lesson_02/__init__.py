"""Lesson 2's exercises: two of its page 2 (the tables), two of its page 2b (gradient and memory)."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_02 import accumulate, bubbles, gpipe, serial

EXERCISES = (serial.EXERCISE, gpipe.EXERCISE, bubbles.EXERCISE, accumulate.EXERCISE)
