"""Devices that are faster or slower than what is measured, on each clock."""

import threading
import time

import pytest
import torch
from torch import nn

from pipelab import ConfigurationError, Costs, Pipeline, build_schedule, simulate
from pipelab.quantities import parse_speeds
from pipelab.runtime import gradient_error, unsplit_gradients
from pipelab.runtime.device.channels import Aborted
from pipelab.runtime.report import _median
from pipelab.simulation.costs import SlotCosts
from tests.runtime.small import Work, data, mlp, mse

FOUR = build_schedule("1f1b", devices=4, microbatches=4)
UNLIKE = [1, 1, 2, 0.5]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([1, 2], r"speeds is given for 2 devices, there are 4; give 4, such as \[1, 1, 1, 1\], or None"),
        (2, r"speeds must be a list of 4 numbers, one a device, got 2; try \[1, 1, 1, 1\]"),
        ([1, 1, 0, 1], "the speed of device 2 must be a positive number, got 0; 1 is as measured"),
        ([1, float("inf"), 1, 1], "the speed of device 1 must be a positive number, got inf"),
        ([1, "2", 1, True], "the speed of device 1 must be a positive number, got '2'"),
    ],
)
def test_speeds_that_cannot_be_are_refused(given, said):
    with pytest.raises(ConfigurationError, match=said):
        Pipeline(mlp(), FOUR, loss=mse, speeds=given)
    pipeline = Pipeline(mlp(), FOUR, loss=mse, speeds=UNLIKE)
    with pytest.raises(ConfigurationError, match=said):
        pipeline.speeds = given
    assert pipeline.speeds == (1, 1, 2, 0.5)
    assert parse_speeds(None, 4) == parse_speeds([1, 1.0, 1, 1], 4) == []


def test_without_costs_there_is_nothing_to_divide():
    with pytest.raises(ConfigurationError, match="speeds needs measure_costs=True"):
        Pipeline(mlp(), FOUR, loss=mse, speeds=UNLIKE, measure_costs=False)


def test_the_device_clock_divides_what_was_measured():
    settings = {"loss": mse, "optimizer": lambda named: torch.optim.SGD([p for _, p in named], lr=0.1)}
    pipeline, model = Pipeline(mlp(), FOUR, speeds=UNLIKE, **settings), mlp()
    true = unsplit_gradients(model, mse, *data())
    report = pipeline.step(*data())
    assert gradient_error(pipeline.gradients(), true.gradients) < 1e-12
    report = pipeline.step(*data())
    raw = _median(report.past)
    scaled = tuple(tuple(cost / speed for cost in row) for row, speed in zip(raw, UNLIKE, strict=True))
    true = simulate(FOUR, SlotCosts(scaled))
    assert [span.duration for span in report.timeline.spans] == pytest.approx([s.duration for s in true.spans])
    assert report.timeline.makespan == pytest.approx(true.makespan)
    assert "device 2 at speed 2, device 3 at speed 0.5" in report.timeline.clock_name
    assert report.slot_costs.slots[2][0] == pytest.approx(report.logs[2].readings.cost[0] / 2)
    assert 0 < report.covered < 1.01, "of the time that was really used"
    pipeline.speeds = None
    report = pipeline.step(*data())
    assert report.timeline.makespan == pytest.approx(simulate(FOUR, SlotCosts(_median(report.past))).makespan)
    assert "speed" not in report.timeline.clock_name
    pipeline.reschedule(build_schedule("gpipe", 2, 2))
    assert pipeline.speeds == (1, 1)
    pipeline.speeds = [1, 3]
    with pytest.raises(ConfigurationError, match="speeds is given for 2 devices, there are 4"):
        pipeline.reschedule(FOUR)


def test_the_unit_clock_draws_textbook_pictures_of_unlike_devices():
    report = Pipeline(mlp(), FOUR, loss=mse, clock="unit", costs=Costs(1, 2), speeds=[1, 1, 2, 1]).step(*data())
    assert {span.duration for span in report.timeline.on_device(2)} == {0.5, 1.0}
    assert {span.duration for span in report.timeline.on_device(1)} == {1.0, 2.0}
    assert report.timeline.note == "device 2 at speed 2"


def test_a_profile_is_as_the_devices_show_it():
    def model():
        return nn.Sequential(*(Work(0.004) for _ in range(2)))

    two, given = build_schedule("1f1b", 2, 1), (torch.randn(4, 5), torch.randn(4, 5))
    for clock, speeds, ratio in (("device", [1, 4], 0.25), ("wall", [1, 4], 0.25), ("device", [0.25, 1], 0.25)):
        pipeline = Pipeline(model(), two, loss=mse, clock=clock, speeds=speeds)
        forward = pipeline.profile(*given, repeats=2).forward
        assert forward[1] / forward[0] == pytest.approx(ratio, rel=0.3)
        assert (forward[1] > 0.003) == (clock == "wall" or speeds == [0.25, 1]), "none is faster than it is"
        seconds = [stage.seconds["F"] for stage in pipeline.measure_microbatch(*given).stages]
        assert seconds[1] / seconds[0] == pytest.approx(ratio, rel=0.3)


@pytest.mark.parametrize("launch", ["threads", "processes"])
def test_on_the_wall_clock_a_slow_device_is_slow(launch):
    model, given = nn.Sequential(*(Work(0.003) for _ in range(2))), (torch.randn(8, 5), torch.randn(8, 5))
    two = build_schedule("gpipe", 2, 4)

    def stretched(report, r):
        """How often its own CPU time the shortest slot of a device took: more where others want the core."""
        costs = report.logs[r].readings.cost
        return min(s.duration / cost for s, cost in zip(report.timeline.on_device(r), costs, strict=True))

    with Pipeline(model, two, loss=mse, clock="wall", launch=launch, speeds=[1, 0.25], device="cpu") as pipeline:
        true = unsplit_gradients(model, mse, *given).gradients
        report = pipeline.step(*given)
        assert gradient_error(pipeline.gradients(), true) < 1e-5
        assert stretched(report, 1) >= 4 and stretched(report, 0) < 3
        assert report.timeline.note == "device 1 at speed 0.25"
        pipeline.speeds = [0.2, 2]
        report = pipeline.step(*given)
        assert stretched(report, 0) >= 10 and stretched(report, 1) < 3, "now it is the first that is held back"


def test_a_device_that_is_held_back_can_be_stopped():
    model = nn.Sequential(*(Work(0.02) for _ in range(2)))
    pipeline = Pipeline(model, build_schedule("gpipe", 2, 2), loss=mse, clock="wall", speeds=[1, 0.001])
    threading.Timer(0.3, pipeline._engine.interrupt).start()
    begun = time.monotonic()
    with pytest.raises(Aborted):
        pipeline.step(torch.randn(4, 5), torch.randn(4, 5))
    assert time.monotonic() - begun < 5, "a slot would have taken 20 s"
