"""A monitor watches steps, names who is busiest, tells what it is asked to tell, and fails no step."""

from __future__ import annotations

import warnings

import pytest
import torch

from pipelab import ConfigurationError, Monitor, build_schedule
from tests.tuning.monitor.watched import BATCH, Work, after, watched


@pytest.mark.parametrize("settings", [{}, {"clock": "wall"}, {"clock": "unit"}, {"launch": "processes"}])
def test_in_every_launch_and_clock_it_tells_the_bubble_in_parts(settings):
    found = after(4, Monitor(tokens=7), **settings).summary()
    assert (found.step, found.steps, found.schedule) == (3, 4, "1f1b")
    assert found.causes.total == pytest.approx(found.bubble, abs=1e-9)
    assert sum(found.utilisation) / 3 == pytest.approx(1 - found.bubble)
    assert found.tokens_per_second == pytest.approx(7 * found.sequences_per_second)
    assert found.sequences_per_second > 0 and 0 < found.load_balance <= 1
    assert all(held.activations > 0 and held.model_states.weights == 160 for held in found.memory)
    assert bool(found.links) == (settings.get("clock") == "wall")


def test_a_heavy_stage_is_the_bottleneck_since_it_became_heavy():
    monitor = Monitor(every=3)
    works = [Work(times) for times in (200, 60, 60)]
    with watched(monitor, works=works) as pipeline:
        for _ in range(4):
            pipeline.step(*BATCH)
        assert (monitor.summary().bottleneck.device, monitor.summary().bottleneck.since <= 1) == (0, True)
        works[2].times = 2000
        for _ in range(4):
            pipeline.step(*BATCH)
    found = monitor.summary()
    assert (found.bottleneck.device, found.bottleneck.stage, found.bottleneck.since) == (2, 2, 4)
    assert found.load_balance < 0.6
    assert found.causes.imbalance > 0.1
    assert "the bottleneck is device 2, stage 2, since step 4" in str(found)


def test_a_slow_device_is_the_bottleneck():
    found = after(3, speeds=[1, 0.1, 1]).summary()
    assert found.bottleneck.device == 1
    assert found.utilisation[1] == max(found.utilisation) and found.load_balance < 0.8


def test_one_hiccup_is_no_new_bottleneck():
    monitor = Monitor()
    for step, busiest in enumerate([0, 0, 1, 0, 2, 2, 0, 2]):
        monitor._follow(busiest, step)
    assert monitor._leader == (2, 4)


def test_another_schedule_begins_anew():
    monitor = Monitor()
    with watched(monitor, steps=3) as pipeline:
        pipeline.reschedule(build_schedule("gpipe", 2, 4))
        pipeline.step(*BATCH)
    found = monitor.summary()
    assert (found.steps, found.schedule, len(found.utilisation), len(found.memory)) == (1, "gpipe", 2, 2)
    assert found.bottleneck is None or found.bottleneck.since == 3


def test_an_evaluation_is_no_step_and_only_the_last_steps_are_kept():
    monitor = Monitor(every=2, keep=3)
    with pytest.raises(ConfigurationError, match="has seen no step yet"):
        monitor.summary()
    assert monitor.line() == ""
    with watched(monitor, steps=4) as pipeline:
        pipeline.evaluate(*BATCH)
    assert [one.step for one in monitor.history()] == [1, 2, 3]
    assert (monitor.summary().steps, monitor.summary().step) == (2, 3)


def test_without_measured_costs_it_says_so_and_still_counts():
    found = after(3, measure_costs=False, measure_memory=False, clock="wall").summary()
    assert found.causes is found.bubble is found.load_balance is None
    assert found.sequences_per_second > 0
    assert "costs were not measured (measure_costs=False)" in str(found)
    assert "activations not measured" in str(found)


def test_without_a_flush_each_step_counts_its_own_sequences():
    sgd = lambda named: torch.optim.SGD([p for _, p in named], lr=0.0)  # noqa: E731
    found = after(4, name="pipedream", optimizer=sgd).summary()
    assert found.causes.total == pytest.approx(found.bubble, abs=1e-9)
    assert found.sequences_per_second == pytest.approx(16 / found.seconds, rel=0.5)


def test_sinks_are_told_every_so_many_steps():
    told = []
    after(7, Monitor(every=3, sinks=[told.append]))
    assert [(one.step, one.steps) for one in told] == [(2, 3), (5, 3)]


def test_a_sink_that_fails_is_left_out_and_the_others_are_told():
    told = []

    def broken(summary):
        raise OSError("disk full")

    with pytest.warns(UserWarning, match="disk full") as caught:
        after(3, Monitor(every=1, sinks=[broken, told.append]))
    assert len(caught) == 1 and len(told) == 3


class Broken:
    def observe(self, report, seconds):
        raise ValueError("not like that")


def test_a_monitor_that_fails_fails_no_step():
    with pytest.warns(UserWarning, match="the monitor failed, and watches no more: ValueError: not like that"):
        pipeline = watched(Broken(), steps=1)
    with warnings.catch_warnings(), pipeline:
        warnings.simplefilter("error")
        assert pipeline.step(*BATCH).step == 1


def test_what_is_no_monitor_is_refused():
    with pytest.raises(ConfigurationError, match=r"observe.*int has not; try Monitor"):
        watched(3)
    with pytest.raises(ConfigurationError, match="keep must be at least every = 9, got 8"):
        Monitor(every=9, keep=8)
    with pytest.raises(ConfigurationError, match="every must be a whole number"):
        Monitor(every=0)
