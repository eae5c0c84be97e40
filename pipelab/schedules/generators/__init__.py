"""One file per schedule, each defining ``RECIPE``; files without one help others."""
