"""A worker says where it is: in the program as the host walks it, or, where that runs ahead, as the device does."""

from __future__ import annotations

import threading

import pytest

from pipelab import Pipeline, TimeLimitError, build_schedule
from pipelab.runtime.device.clocks import CpuMeter
from tests.runtime.small import data, mlp, mse

SCHEDULE = build_schedule("1f1b", 2, 3)
"""Device 1 runs 1F0 1B0 1F1 1B1 1F2 1B2."""


@pytest.mark.parametrize(
    ("reached", "named"),
    [
        ((2, True), r"device 1 is still in 1F1 \(stage 1, micro-batch 1\)"),
        ((3, False), r"device 1 is still in 1B1 \(stage 1, micro-batch 1\)"),
        ((2, False), r"device 1 is still waiting before 1F1 for the activation of 0F1 from device 0"),
    ],
)
def test_a_device_that_is_behind_the_host_is_told_where_it_is(monkeypatch, reached, named):
    """As a GPU in a kernel that does not end: everything has been enqueued, and there is more to come."""
    goes_on = threading.Event()
    behind = lambda meter: None if goes_on.is_set() or threading.current_thread().name[-1] != "1" else reached  # noqa: E731
    monkeypatch.setattr(CpuMeter, "reached", behind)
    pipeline = Pipeline(mlp(), SCHEDULE, loss=mse, clock="wall", time_limit=0.3)
    with pytest.raises(TimeLimitError, match=named) as caught:
        pipeline.step(*data(6))
    assert caught.value.stuck == (1,)
    goes_on.set()
    for thread in pipeline._engine._replicas.busy:
        thread.join(10)


def test_it_catches_up(monkeypatch):
    left = [(0, False), (0, True), (3, True)]
    monkeypatch.setattr(CpuMeter, "reached", lambda meter: left.pop() if left else None)
    assert Pipeline(mlp(), SCHEDULE, loss=mse, clock="wall").verify(*data(6)) < 1e-10
    assert not left
