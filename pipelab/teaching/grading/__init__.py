"""The checks that teach, and the grader.

In a notebook: ``check("gpipe", gpipe)`` under an exercise. At the command line: ``pipelab grade``. One definition of an
exercise (``teaching/exercises/``) serves both: which cases there are, what is asked of the learner's function, and how
plain data that came of it is judged.
"""

from pipelab.teaching.grading.check import CheckFailed, NotWritten, check

__all__ = ["CheckFailed", "NotWritten", "check"]
