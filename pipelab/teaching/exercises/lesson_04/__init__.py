"""Lesson 4's exercises."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_04.interleaved_warmup import (
    EXERCISES,
    LESSON,
    beside,
    depths_of,
    held,
    right_table,
    size_words,
    sized,
    sizes_of,
    with_depths,
)

__all__ = [
    "EXERCISES",
    "LESSON",
    "beside",
    "depths_of",
    "held",
    "right_table",
    "size_words",
    "sized",
    "sizes_of",
    "with_depths",
]
