from dataclasses import replace

import pytest

from pipelab.schedules import build_schedule
from pipelab.timeline import Holding
from pipelab.view.memory import held
from tests.view.scenes import measured, predicted


def test_bytes_are_preferred_and_share_a_round_scale():
    timeline = predicted("1f1b", 4, 8, batch=64, activation_bytes=19.07e6)
    (curve,) = held([timeline])
    assert (curve.name, curve.axis, curve.unit) == ("activation bytes", "MB held", "MB")
    assert curve.peaks == timeline.peak_bytes
    assert curve.steps == tuple(holding.steps for holding in timeline.holdings)
    assert curve.top == pytest.approx(80)
    assert curve.words(curve.peaks[0]) == "76.3 MB"


@pytest.mark.parametrize(("size", "axis"), [(3e9, "GB held"), (3e6, "MB held"), (3e3, "kB held"), (3, "B held")])
def test_the_unit_suits_the_highest_peak(size, axis):
    (curve,) = held([predicted("1f1b", 2, 2, activation_bytes=size)])
    assert curve.axis == axis
    assert 0.5 < max(curve.peaks) * curve.factor / curve.top <= 1


def test_else_sequences_else_microbatches():
    timeline = predicted("1f1b", 4, 8, batch=64)
    (curve,) = held([timeline])
    assert (curve.name, curve.peaks) == ("sequences in flight", timeline.peak_sequences)
    assert curve.steps[0] == tuple((t, q) for t, _, q in timeline.in_flight(0))
    timeline = predicted("interleaved", 4, 4, 2)
    (curve,) = held([timeline])
    assert (curve.name, curve.peaks) == ("micro-batches in flight", timeline.peak_microbatches)
    assert curve.top == max(timeline.peak_microbatches)
    assert "full device shares" in curve.meaning


def test_several_timelines_share_kind_and_scale():
    with_bytes, without = predicted("gpipe", 4, 8, batch=64, activation_bytes=1e6), predicted("1f1b", 4, 8, batch=64)
    curves = held([with_bytes, without])
    assert {curve.name for curve in curves} == {"sequences in flight"}
    assert {curve.top for curve in curves} == {64.0}
    curves = held([with_bytes, predicted("1f1b", 4, 8, activation_bytes=3e6)])
    assert {(curve.unit, curve.top) for curve in curves} == {("MB", 12.0)}


def test_a_device_without_a_holding_holds_nothing():
    timeline = replace(measured(build_schedule("1f1b", 2, 2)), holdings=(Holding(1, ((0.0, 5.0),)),))
    (curve,) = held([timeline])
    assert curve.peaks == (0.0, 5.0)
    assert curve.steps == ((), ((0.0, 5.0),))


def test_nothing_held_still_has_a_scale():
    timeline = replace(predicted("1f1b", 2, 2), holdings=(Holding(0, ()), Holding(1, ())))
    assert held([timeline])[0].top == 1.0
