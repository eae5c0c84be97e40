"""One file per schedule, each defining ``RECIPE``."""
