"""Where pages that learners began earlier look for what is in ``pipelab.teaching`` now: their work goes on."""

import sys

from pipelab.teaching.exercises.lesson_05 import forecasts
from pipelab.teaching.grading.check import NotWritten, check
from pipelab.teaching.guesses import ledger, predict, reveal

__all__ = ["NotWritten", "check", "ledger", "predict", "reveal"]

sys.modules[f"{__name__}.checks"] = sys.modules[f"{__name__}.checks.lesson_05_frozen"] = forecasts
