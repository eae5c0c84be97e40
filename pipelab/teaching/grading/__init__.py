"""Exercises, the checks that teach, and the grader.

In a notebook: ``check("gpipe", gpipe)`` under an exercise, ``predict`` and ``reveal`` in a lesson. At the command line:
``pipelab grade``. One definition of an exercise (``checks/``) serves both: :class:`Exercise` says which cases there
are, what is asked of the learner's function, and how plain data that came of it is judged.
"""

from pipelab.teaching.exercises.definition import Case, Exercise, Finding
from pipelab.teaching.grading.check import CheckFailed, NotWritten, check
from pipelab.teaching.guesses import ledger, predict, reveal

__all__ = ["Case", "CheckFailed", "Exercise", "Finding", "NotWritten", "check", "ledger", "predict", "reveal"]
