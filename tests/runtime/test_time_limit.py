"""A stage that never returns, or leaves the program: the caller gets control back, and is told where it was."""

from __future__ import annotations

import sys
import threading
import time

import pytest
import torch
from torch import nn

from pipelab import ConfigurationError, Pipeline, StageError, TimeLimitError, build_schedule
from tests.runtime.small import data, mse


class Waits(nn.Module):
    """Its ``nth`` forward waits until it is let go."""

    def __init__(self, nth: int) -> None:
        super().__init__()
        self.nth, self.calls, self.go = nth, 0, threading.Event()

    def forward(self, x):
        self.calls += 1
        if self.calls == self.nth:
            self.go.wait(60)
        return x * 1


def pipeline(waits, **told):
    model = nn.Sequential(nn.Linear(5, 6), waits, nn.Linear(6, 3)).double()
    return Pipeline(model, build_schedule("1f1b", 3, 4), loss=mse, **told)


@pytest.mark.parametrize("clock", ["device", "wall"])
def test_a_stage_that_does_not_return_is_named_and_a_new_pipeline_works_beside_it(clock):
    waits = Waits(nth=3)
    stuck = pipeline(waits, clock=clock, time_limit=0.3)
    begun = time.perf_counter()
    with pytest.raises(TimeLimitError) as caught:
        stuck.step(*data())
    assert time.perf_counter() - begun < 3
    assert caught.value.stuck == (1,)
    assert "within 0.3 s" in str(caught.value)
    assert "device 1 is still in 1F2 (stage 1, micro-batch 2)" in str(caught.value)
    with pytest.raises(Exception, match="make a new Pipeline"):
        stuck.step(*data())
    with pytest.raises(Exception, match="make a new Pipeline"):
        stuck.evaluate(data()[0])
    assert pipeline(Waits(nth=-1), clock=clock).verify(*data()) < 1e-10
    waits.go.set()
    for thread in stuck._engine._replicas.busy:
        thread.join(10)
    assert stuck.verify(*data()) < 1e-10, "it can go on once that has returned"


def test_what_an_earlier_step_failed_in_is_not_named_as_stuck():
    """Where devices take turns the one behind has not begun, and still knew the action that it had failed in."""
    waits, fails = Waits(nth=-1), [True]

    class FailsOnce(nn.Module):
        def forward(self, x):
            if fails.pop() if fails else False:
                raise ValueError("once")
            return x * 1

    model = nn.Sequential(nn.Linear(5, 6), waits, FailsOnce(), nn.Linear(6, 3)).double()
    made = Pipeline(model, build_schedule("1f1b", 3, 4), loss=mse, cuts=(2, 3), time_limit=0.3)
    with pytest.raises(ValueError, match="once"):
        made.step(*data())
    waits.nth = waits.calls + 1
    with pytest.raises(TimeLimitError) as caught:
        made.step(*data())
    waits.go.set()
    assert caught.value.stuck == (0,) and "device 1" not in str(caught.value)


def test_a_step_that_is_only_slow_leaves_nothing_behind():
    class Slow(nn.Module):
        times = 1

        def forward(self, x):
            for _ in range(self.times):
                x = x + 1
            return x

    slow = pipeline(Slow(), time_limit=0.2)
    slow.step(*data())
    Slow.times = 40_000
    with pytest.raises(TimeLimitError, match="allow more with time_limit=") as caught:
        slow.step(*data())
    assert caught.value.stuck == ()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pipelab device")]


def test_the_limit_is_learnt_and_can_be_off():
    made = pipeline(Waits(nth=-1))
    made.step(*data())
    limit = made._engine.peers.limit
    assert limit.seconds == 60.0
    limit.learn(10.0)
    assert limit.seconds == 200.0
    assert pipeline(Waits(nth=-1), time_limit=float("inf")).step(*data()).loss > 0
    for wrong in (0, -1.0, float("nan"), "30s", True):
        with pytest.raises(ConfigurationError, match=rf"time_limit is a number of seconds .* got {wrong!r}; try 60"):
            pipeline(Waits(nth=-1), time_limit=wrong)


@pytest.mark.parametrize("op", ["F", "B"])
def test_an_exit_inside_a_stage_does_not_end_the_callers_program(op):
    class Leaves(nn.Module):
        def forward(self, x):
            if op == "F":
                sys.exit(3)
            y = x * 1
            y.register_hook(lambda grad: sys.exit(3))
            return y

    with pytest.raises(StageError, match=rf"^SystemExit on device 1, stage 1, action 1{op}0, micro-batch 0: .*exit.3"):
        pipeline(Leaves()).step(*data())
    assert torch.is_grad_enabled()
