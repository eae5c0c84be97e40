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
        self.nth, self.calls, self.there, self.go = nth, 0, threading.Event(), threading.Event()

    def forward(self, x):
        self.calls += 1
        if self.calls == self.nth:
            self.there.set()
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


class Sleeps(nn.Module):
    """Each forward takes ``seconds``, and the step as long as it has micro-batches, however busy the machine is."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, x):
        time.sleep(self.seconds)
        return x * 1


def test_a_step_that_is_only_slow_leaves_nothing_behind(monkeypatch):
    monkeypatch.setattr("pipelab.runtime.device.threads.GRACE", 30.0)  # to end an action on a busy machine
    slow = pipeline(Sleeps(0.1), time_limit=0.2)
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


class Slow(nn.Module):
    """Each forward takes ``seconds``: as a first call that compiles, say."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, x):
        end = time.perf_counter() + self.seconds
        while time.perf_counter() < end:
            x = x * 1
        return x


def sgd(named):
    return torch.optim.SGD([p for _, p in named], lr=0.1)


@pytest.mark.parametrize("launch", ["threads", "processes"])
def test_the_first_step_of_a_kind_has_time_whatever_has_been_quick_before(launch, monkeypatch):
    monkeypatch.setattr("pipelab.runtime.faults.limit._LEAST", 0.05)
    slow = Slow(0.0)
    model = nn.Sequential(nn.Linear(5, 6), slow, nn.Linear(6, 3)).double()
    with Pipeline(model, build_schedule("gpipe", 3, 2), loss=mse, launch=launch, optimizer=sgd) as made:
        x, y = data(8)
        for _ in range(2):
            made.evaluate(x[:4], y[:4])
            made.verify(x[:4], y[:4])
        slow.seconds = 0.2
        assert made.step(x, y).loss > 0


def test_an_error_that_came_before_the_limit_is_the_one_that_is_told():
    waits = Waits(nth=2)

    class Fails(nn.Module):
        def forward(self, x):
            if waits.there.wait(0.0 if waits.calls == 0 else 10):
                raise ValueError("boom")
            return x

    model = nn.Sequential(nn.Linear(5, 6), waits, nn.Linear(6, 3), Fails()).double()
    made = Pipeline(model, build_schedule("gpipe", 3, 4), loss=mse, cuts=(1, 2), clock="wall", time_limit=0.5)
    with pytest.raises(StageError, match="ValueError on device 2"):
        made.step(*data())
    assert [thread for thread in made._engine._replicas.busy if thread.is_alive()]
    waits.go.set()


def test_processes_that_are_only_slow_stop_and_go_on():
    def build(s):
        return nn.Sequential(nn.Linear(5, 5), Sleeps(0.03 if s == 1 else 0.0)).double()

    told = {"loss": mse, "launch": "processes"}
    with Pipeline(build, build_schedule("gpipe", 2, 40), time_limit=0.5, **told) as slow:
        x = data(40)[0]
        with pytest.raises(TimeLimitError, match="its devices ended when they were told to") as caught:
            slow.step(x, x)
        assert caught.value.stuck == ()
        assert not slow._engine._pool.broken


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
