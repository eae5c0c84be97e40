"""Which order is best: a search over tables, for given costs, messages and memory."""

from pipelab.simulation.search.search import Found, search_schedule

__all__ = ["Found", "search_schedule"]
