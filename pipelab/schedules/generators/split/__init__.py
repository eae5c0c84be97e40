"""Schedules that split a backward into I and W, and fill idle time with W."""
