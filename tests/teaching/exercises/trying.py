"""Answers handed to an exercise's check, as its tests do it."""

from __future__ import annotations

import pytest

from pipelab.errors import PipelabError
from pipelab.schedules.reserved import reserve
from pipelab.teaching.exercises import exercise
from pipelab.teaching.grading.check import try_parts


def findings(name, *functions, seed=3):
    """The message for each part that is not earned; ``functions`` in the order of the exercise's answers."""
    made = exercise(name)
    found = try_parts(made, dict(zip(made.answers, functions, strict=True)), seed=seed)
    return {part: finding.message for part, finding in found.items() if finding is not None}


def open_parts(name, seed=3, **answers):
    """The parts that ``answers`` do not earn."""
    return {part for part, finding in try_parts(exercise(name), answers, seed).items() if finding is not None}


def messages(name, **answers):
    """What the check cell says."""
    return [finding.message for finding in try_parts(exercise(name), answers).values() if finding is not None]


def assert_reserved(*references):
    """None of ``references`` answers while a learner's function runs."""
    with reserve("this exercise"):
        for reference in references:
            with pytest.raises(PipelabError, match="does not answer here"):
                reference()
