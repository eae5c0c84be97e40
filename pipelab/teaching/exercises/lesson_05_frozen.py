"""Where the source of lesson 5 still fetches ``forecasts``; its home is ``lesson_05.forecasts``."""

from pipelab.teaching.exercises.lesson_05.forecasts import forecasts

__all__ = ["forecasts"]
