"""Lesson 11's exercises."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_11 import latency_and_throughput, least_batch, second_worker

__all__ = ["EXERCISES"]

EXERCISES = (least_batch.EXERCISE, second_worker.EXERCISE, latency_and_throughput.EXERCISE)
