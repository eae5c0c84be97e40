"""Schedules that update without a flush: each table lists its updates."""
