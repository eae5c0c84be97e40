"""Lesson 11's exercises."""

from __future__ import annotations

from pipelab.teaching.exercises.lesson_11 import (
    find_bottleneck,
    latency_and_throughput,
    least_batch,
    order_frames,
    parareal_bound,
    second_worker,
)

__all__ = ["EXERCISES"]

EXERCISES = (
    find_bottleneck.EXERCISE,
    order_frames.EXERCISE,
    parareal_bound.EXERCISE,
    least_batch.EXERCISE,
    second_worker.EXERCISE,
    latency_and_throughput.EXERCISE,
)
