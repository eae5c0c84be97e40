"""A walk is compiled once; in threads or in turns, measured or not, it computes the same."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from torch import nn

from pipelab import PipelabError, Pipeline, StageError, build_schedule


class Watches(nn.Module):
    """Notes the thread that runs it."""

    def __init__(self):
        super().__init__()
        self.lin, self.threads = nn.Linear(5, 5), set()

    def forward(self, x):
        self.threads.add(threading.get_ident())
        return torch.tanh(self.lin(x))


def data():
    torch.manual_seed(1)
    return torch.randn(8, 5, dtype=torch.float64), torch.randn(8, 5, dtype=torch.float64)


def pipeline(p=4, m=4, name="1f1b", **settings):
    torch.manual_seed(0)
    model = nn.Sequential(*[Watches() for _ in range(p)]).double()
    return model, Pipeline(model, build_schedule(name, p, m), loss=nn.MSELoss(), device="cpu", **settings)


def threads_of_a_step(clock, monkeypatch, small):
    monkeypatch.setattr("pipelab.runtime.steps.walk._SMALL", small)
    model, made = pipeline(clock=clock)
    for _ in range(2):  # the first tells how small slots are
        for stage in model:
            stage.threads.clear()
        made.step(*data())
    return set().union(*(stage.threads for stage in model))


def test_devices_take_turns_under_the_device_clock_and_where_slots_are_small(monkeypatch):
    """Threads share Python's interpreter: to hand it over in the middle of a slot takes longer than a small slot."""
    assert len(threads_of_a_step("device", monkeypatch, 0.0)) == 1
    assert len(threads_of_a_step("wall", monkeypatch, 10.0)) == 1
    assert len(threads_of_a_step("wall", monkeypatch, 0.0)) == 4


def test_devices_that_wait_for_something_else_do_not_take_turns_for_long():
    """A stage that sleeps uses no CPU time, and was taken for small: all waited for each other's sleep."""

    class Sleeps(Watches):
        def forward(self, x):
            time.sleep(0.002)
            return super().forward(x)

    torch.manual_seed(0)
    model = nn.Sequential(Sleeps(), Sleeps()).double()
    with Pipeline(model, build_schedule("1f1b", 2, 4), loss=nn.MSELoss(), device="cpu", clock="wall") as made:
        for _ in range(4):
            made.step(*data())
        for stage in model:  # a thread that has ended may lend its number to the next
            stage.threads.clear()
        made.step(*data())
    assert not model[0].threads & model[1].threads


def test_no_one_takes_turns_where_a_link_is_modelled():
    """To wait for a slow message is one device's business."""
    model, made = pipeline(p=2, clock="wall", latency=1e-4)
    for _ in range(3):
        for stage in model:
            stage.threads.clear()
        made.step(*data())
    assert not model[0].threads & model[1].threads


@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
@pytest.mark.parametrize("sends", [{}, {"outstanding": 1}, {"sends": "batched"}])
def test_in_turns_and_in_threads_it_computes_the_same(name, sends, monkeypatch):
    monkeypatch.setattr("pipelab.runtime.steps.walk._SMALL", 0.0)
    found = []
    for clock in ("device", "wall"):
        model, made = pipeline(name=name, clock=clock, **sends)
        for _ in range(2):
            report = made.step(*data())
        found.append((report.loss, [p.grad for p in model.parameters()]))
        assert made.verify(*data()) < 1e-13
    assert found[0][0] == found[1][0]
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


def test_an_error_of_one_device_ends_all_turns_and_the_next_step_runs():
    model, made = pipeline(clock="device")
    kept = model[2].forward

    def fails(x):
        raise LookupError("not today")

    model[2].forward = fails
    with pytest.raises(StageError, match="LookupError on device 2, stage 2, action 2F0, micro-batch 0: not today"):
        made.step(*data())
    model[2].forward = kept
    assert made.verify(*data()) < 1e-13


def test_turns_that_are_interrupted_stop():
    model, made = pipeline(clock="device")
    begun = threading.Event()
    kept = model[0].forward

    def first(x):
        begun.set()
        made._engine.interrupt()
        return kept(x)

    model[0].forward = first
    with pytest.raises(Exception, match=r"Aborted|stopped|^$"):
        made.step(*data())
    assert begun.is_set()
    model[0].forward = kept
    assert made.verify(*data()) < 1e-13


@pytest.mark.parametrize("launch", ["threads", "processes"])
def test_what_is_not_measured_costs_nothing_and_is_not_told(launch):
    model, made = pipeline(p=2, launch=launch, measure_costs=False, measure_memory=False)
    with made:
        report = made.step(*data())
        assert report.loss == pytest.approx(nn.functional.mse_loss(model(data()[0]), data()[1]).item())
        assert made.verify(*data()) < 1e-13
        for name in ("timeline", "wall", "slot_costs", "covered"):
            with pytest.raises(PipelabError, match="measure_costs=False: no one knows when its slots ran"):
                getattr(report, name)
        assert report.peak_activation_bytes == (0, 0)
        assert made.evaluate(*data()).outputs.shape == (8, 5)
        assert made.profile(*data()).forward[0] > 0, "a profile measures all the same"
