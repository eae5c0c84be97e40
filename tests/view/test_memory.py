from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipelab import Costs, simulate
from pipelab.schedules import build_schedule
from pipelab.timeline import Holding
from pipelab.view.memory import held, shares
from tests.strategies import sound_tables
from tests.view.scenes import FUSED, SPLIT, measured, predicted


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


# ---- whose it is -----------------------------------------------------------------------------------------------------


def at(steps, time):
    """The value of steps at a time, 0 before the first."""
    return [0.0, *(value for t, value in steps if t <= time)][-1]


@given(sound_tables(), st.sampled_from([{}, {"activation_bytes": 5.0}]))
def test_shares_add_up_to_the_curve_while_any_forward_runs(schedule, known):
    """A forward keeps all it makes from its start; what only a backward has for itself is nobody's share."""
    assume(not schedule.forward_only)
    shares_add_up(simulate(schedule, Costs(forward=1, backward=2, **known)))


@pytest.mark.parametrize("waiting", [3.0, 5.0, 8.0])
def test_what_an_i_leaves_for_w_is_no_dip_in_the_curve(waiting):
    """It lets go of some bytes and keeps others at the same moment."""
    costs = Costs(forward=1, backward=2, activation_bytes=5.0, waiting_bytes=waiting, message_bytes=1.0)
    for name in ("zb-h1", "zb-v"):
        shares_add_up(simulate(build_schedule(name, 2, 4), costs))


def shares_add_up(timeline):
    (curve,) = held([timeline])
    found = shares(timeline, curve)
    for span in timeline.spans:
        if getattr(span.slot, "op", "") == "F":
            middle = (span.start + span.end) / 2
            together = sum(at(share.steps, middle) for share in found if share.device == span.device)
            assert together == pytest.approx(at(curve.steps[span.device], middle))


def test_a_microbatch_is_held_from_its_forward_to_its_backward():
    timeline = predicted("1f1b", 2, 3)
    found = {(share.device, share.microbatch): share.steps for share in shares(timeline, *held([timeline]))}
    assert found[0, 0] == ((0, 1), (4, 0))
    assert found[1, 2] == ((5, 1), (7, 0))


def test_where_it_is_recomputed_its_input_is_held_first():
    timeline = predicted("gpipe", 2, 2, recompute=True, activation_bytes=10e6, input_bytes=1e6)
    first = next(share for share in shares(timeline, *held([timeline])) if (share.device, share.microbatch) == (1, 0))
    amounts = [value for _, value in first.steps]
    assert len(amounts) == 3
    assert 0 < amounts[0] < amounts[1]
    assert amounts[2] == 0


def test_what_was_measured_is_taken_apart_by_what_each_slot_left():
    timeline = predicted("1f1b", 2, 2)
    spans = timeline.on_device(0)  # F0 F1 B0 B1; while a slot runs it needs 5 bytes more than it leaves
    left = [30.0, 50.0, 20.0, 0.0]
    steps = [
        step for span, after in zip(spans, left, strict=True) for step in ((span.start, after + 5), (span.end, after))
    ]
    run = replace(timeline, holdings=(Holding(0, tuple(steps)), Holding(1, ())))
    found = {share.microbatch: [value for _, value in share.steps] for share in shares(run, *held([run]))}
    assert found == {0: [30, 0], 1: [20, 0]}


def test_halves_of_a_backward_let_go_with_the_last_of_them_and_fused_slots_of_what_they_end():
    for schedule in (SPLIT, FUSED):
        timeline = simulate(schedule, Costs(fused={"FB": 0.75}))
        found = shares(timeline, *held([timeline]))
        assert len(found) == schedule.devices * schedule.microbatches
        assert all(share.steps[0][1] == 1 and share.steps[-1][1] == 0 for share in found)


def test_nothing_is_kept_of_forwards_alone():
    timeline = simulate(build_schedule("gpipe", 2, 3).forward_part())
    assert shares(timeline, *held([timeline])) == ()
