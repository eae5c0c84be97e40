"""Runs of the worked example: one setting, a family of schedules, and a widget that runs them in a thread."""
