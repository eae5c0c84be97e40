"""What has to hold for a shape, what its devices hold, and which groups they form."""

from __future__ import annotations

import pytest
from hypothesis import given

from pipelab import Cluster, ModelFacts, build_schedule, simulate
from pipelab.tuning.shapes.shape import Job, Shape
from tests.strategies import schedules

JOB = Job(ModelFacts.llama(32, 4096, 32, 8, 14336), Cluster.of("h100", 4), 64)


@given(schedules(["1f1b", "interleaved"], max_p=6, max_m=16, max_v=3))
def test_what_is_in_flight_is_what_the_schedule_holds(schedule):
    if schedule.name == "interleaved" and schedule.microbatches % schedule.devices:
        return  # a shape's m is a multiple of p then
    v = schedule.chunks if schedule.name == "interleaved" else 1
    if schedule.name == "interleaved" and v == 1:
        return  # that is no 1F1B
    shape = Shape(1, schedule.devices, 1, 1, schedule.microbatches, v)
    assert shape.schedule == schedule.name
    assert [shape.in_flight(r) for r in range(shape.pp)] == pytest.approx(simulate(schedule).peak_microbatches)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (Shape(4, 2, 4, 1, 16), None),
        (Shape(4, 2, 4, 1, 16, 4), None),
        (Shape(4, 4, 4, 1, 16), "dp * pp * tp is 64, the cluster has 32 devices"),
        (Shape(2, 1, 16, 1, 32), "tp 16 does not divide kv_heads 8"),
        (Shape(1, 32, 1, 1, 64, 2), "64 stages need as many layers, the model has 32"),
        (Shape(4, 4, 2, 1, 16, 3), "v = 3 does not divide a device's 8 layers"),
        (Shape(4, 2, 4, 3, 5), "dp 4 times b 3 does not divide the batch of 64"),
        (Shape(16, 2, 1, 4, 1, 2), "v = 2 needs pp > 1 and m divisible by pp: m = 1, pp = 2"),
        (Shape(32, 1, 1, 1, 2, 2), "v = 2 needs pp > 1 and m divisible by pp: m = 2, pp = 1"),
    ],
)
def test_a_shape_that_cannot_be_says_why(shape, says):
    assert JOB.problem(shape) == says


def test_a_remainder_of_layers_goes_to_the_first_stages():
    job = Job(ModelFacts.gpt(10, 64, 4), Cluster.of("a100", 1), 8)
    assert [job.layers_on(Shape(2, 4, 1, 1, 4), r) for r in range(4)] == [3, 3, 2, 2]
    assert [job.layers_on(Shape(2, 4, 1, 1, 4, 2), r) for r in range(4)] == [3, 3, 2, 2]


def test_the_order_of_devices_decides_which_groups_leave_a_node():
    shape = Shape(4, 2, 4, 1, 16)
    assert set(JOB.crosses(shape)) == {"dp", "pp"}
    other = Job(JOB.model, JOB.cluster, 64, order="tp-pp-dp")
    assert set(other.crosses(shape)) == {"dp"}
    assert JOB.group(shape, "pp") == (16, 2)
    assert other.group(shape, "pp") == (4, 2)


def test_a_shape_is_read_at_a_glance():
    text = "dp 4, pp 2, tp 4, b = 1, m = 16, v = 4, recompute full, sharding none"
    assert str(Shape(4, 2, 4, 1, 16, 4, "full")) == text
    assert build_schedule(Shape(4, 2, 4, 1, 16, 4).schedule, 2, 16, 4).chunks == 4
