"""Runs in the kernel of a graded slice: notes that the kernel lives, asks the cases, writes plain data.

What is written here is the submission's word: it is judged elsewhere, as data, by
:mod:`pipelab.teaching.grading.judge`.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelab.schedules.reserved import close
from pipelab.teaching.course.exam.drawn import find_exercise
from pipelab.teaching.exercises import exercises
from pipelab.teaching.exercises.definition import Case
from pipelab.teaching.grading.asking import ask_case

__all__ = ["ask_all", "begin"]


def begin(folder: str) -> None:
    """Say which process this kernel is, so that its end is noticed at once; take the memory that it may use.

    From here on the catalogue and the references refuse, in cells, threads and processes alike.
    """
    exercises()  # their visible cases are made with the catalogue
    close("it is closed during grading, because this exercise asks you to write it")
    most = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    Path(folder, "kernel").write_text(str(os.getpid()))


def ask_all(name: str, space: Mapping[str, Any], cases: Sequence[tuple[str, Mapping[str, Any]]], folder: str) -> None:
    """Ask every case of exercise ``name``; one line of JSON each, written as soon as it is known."""
    exercise = find_exercise(name)
    answers = {answer: space[answer] for answer in exercise.answers if answer in space}
    with open(Path(folder, "answers"), "w", encoding="utf-8") as out:
        if set(exercise.answers) - set(answers):
            error = getattr(sys, "last_value", None)
            note = {"raised": f"{type(error).__name__}: {error}"[:300]} if error is not None else {}
            out.write(json.dumps(note) + "\n")
        late: dict[str, dict[str, Any]] = {}
        for part, given in cases:
            answer = late.get(part) or ask_case(exercise, answers, Case(part, given))
            if answer.get("late"):
                late[part] = answer
            out.write(json.dumps(answer) + "\n")
            out.flush()
