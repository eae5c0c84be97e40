"""Questions drawn from a seed. A name alone brings one back, as an exercise: ``exam_17_3`` is the third of seed 17."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from random import Random

from pipelab.errors import ConfigurationError
from pipelab.teaching import exercises
from pipelab.teaching.course.exam import choices, timetables, wires
from pipelab.teaching.course.exam.question import Given, Question
from pipelab.teaching.exercises.definition import Exercise

__all__ = ["COUNT", "QUESTIONS", "Drawn", "drawn", "exam_name", "find_exercise", "seed_of"]

QUESTIONS = tuple(sorted((*timetables.QUESTIONS, *choices.QUESTIONS, *wires.QUESTIONS), key=lambda one: one.lesson))
"""All templates, in the order of the lessons."""
COUNT = 10
_NAME = re.compile(r"exam_(\d{1,9})(?:_(\d+))?")


@dataclass(frozen=True)
class Drawn:
    """A question with its settings. ``number`` counts from 1."""

    question: Question
    given: Given
    exercise: Exercise
    number: int


def exam_name(seed: int) -> str:
    """The name of a seed's examination, as a lesson has one."""
    return f"exam_{seed}"


def seed_of(name: object) -> int | None:
    """The seed in the name of an examination or of a question of one; None in any other."""
    found = _NAME.fullmatch(name) if isinstance(name, str) else None
    return int(found[1]) if found else None


@cache
def drawn(seed: int) -> tuple[Drawn, ...]:
    """The questions of an examination, in the order of the lessons. Raises ConfigurationError for another seed."""
    if seed_of(exam_name(seed)) != seed:
        raise ConfigurationError(f"--seed must be 0 to 999999999, got {seed}; try {abs(seed) % 10**9}")
    chosen = sorted(Random(exam_name(seed)).sample(range(len(QUESTIONS)), COUNT))
    found = []
    for number, k in enumerate(chosen, 1):
        question = QUESTIONS[k]
        given = question.draw(Random(f"{exam_name(seed)} {question.name}"))
        exercise = question.exercise(f"{exam_name(seed)}_{number}", exam_name(seed), number, given)
        found.append(Drawn(question, given, exercise, number))
    return tuple(found)


def find_exercise(name: str) -> Exercise:
    """An exercise of a lesson, or a question of an examination. Raises ConfigurationError."""
    seed = seed_of(name)
    questions = {} if seed is None else {one.exercise.name: one.exercise for one in drawn(seed)}
    return questions[name] if name in questions else exercises.exercise(name)
