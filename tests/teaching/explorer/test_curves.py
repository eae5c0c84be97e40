from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelab import ConfigurationError, PipelabError
from pipelab.teaching.explorer import Settings
from pipelab.teaching.explorer import curves as module
from pipelab.teaching.explorer.curves import AGAINST, Curves
from pipelab.teaching.explorer.figures import FIGURES, value_of
from pipelab.teaching.explorer.settings import CONTROLS

from .states import even

LONG = 1e9


@pytest.fixture
def made(monkeypatch):
    """The settings of every timeline that a curve was computed from."""
    found = []
    compute = module._point
    monkeypatch.setattr(module, "_point", lambda figure, at: found.append(at) or compute(figure, at))
    return found


def whole(state, figure="bubble", against="microbatches"):
    curves = Curves()
    curve = curves.curve(state, figure, against)
    curves.work(state, curve, LONG)
    return curve


@settings(max_examples=10)
@given(even(max_p=3, max_m=6, max_v=2), st.sampled_from(sorted(FIGURES)), st.sampled_from(AGAINST))
def test_a_point_is_the_timelines_figure_with_one_number_turned(state, figure, against):
    curve = whole(state, figure, against)
    assert curve.done
    for place in curve.places[::4]:
        turned = replace(state, **{against: place})
        try:
            assert curve.values[place] == value_of(figure, turned, turned.timeline())
        except PipelabError:
            assert curve.values[place] is None


@pytest.mark.parametrize("against", AGAINST)
@pytest.mark.parametrize("schedule", ["1f1b", "interleaved"])
def test_places_are_in_order_and_within_the_range_of_their_control(schedule, against):
    places = Curves().curve(Settings(schedule=schedule), "bubble", against).places
    one = CONTROLS[against]
    assert list(places) == sorted(set(places))
    assert one.low <= places[0] < places[-1] <= one.high
    assert len(places) >= 4


@pytest.mark.parametrize("figure", ["bubble", "held"])
def test_what_needs_more_memory_than_there_is_is_known_whatever_figure_is_drawn(figure):
    """GPipe keeps all m micro-batches, so a limit is an m; 1F1B's first device keeps p at most, and never less."""
    gpipe = Settings(schedule="gpipe", limit=1.0)
    each = max(replace(gpipe, microbatches=1).timeline().peak_bytes) / 1e6
    curve = whole(replace(gpipe, limit=6.5 * each), figure)
    assert curve.over == {m for m in curve.places if m > 6}
    assert whole(Settings(limit=4.5 * each), figure).over == set()
    assert whole(Settings(limit=3.5 * each), figure).over == {m for m in curve.places if m > 3}
    assert whole(gpipe, figure, "devices").over <= set(map(float, range(1, 17)))
    assert whole(replace(gpipe, limit=None), figure).over == set()


@pytest.mark.parametrize("schedule", ["interleaved", "interleaved-zb", "chimera"])
def test_what_goes_in_groups_of_p_goes_in_steps_of_p_so_that_no_point_is_missing(schedule):
    curve = whole(Settings(schedule=schedule, devices=6, microbatches=6))
    assert all(place % 6 == 0 for place in curve.places)
    assert None not in curve.values.values()


def test_where_there_is_no_schedule_there_is_no_point():
    curve = whole(Settings(fixed="batch", batch=7))
    assert [place for place in curve.places if curve.values[place] is None] == [p for p in curve.places if p > 7]


def test_the_bubble_falls_as_m_grows():
    curve = whole(Settings(schedule="gpipe", devices=4))
    assert curve.values[1] == pytest.approx(75)
    assert curve.values[64] == pytest.approx(100 * 3 / 67)
    assert [curve.values[m] for m in curve.places] == sorted(curve.values.values(), reverse=True)


def test_it_is_computed_in_slices_the_nearest_points_first():
    state = Settings(microbatches=8, devices=2)
    curves = Curves()
    curve = curves.curve(state, "bubble", "microbatches")
    curves.work(state, curve, 0)
    assert list(curve.values) == [8]
    curves.work(state, curve, 0)
    assert set(curve.values) < {7, 8, 10}
    assert not curve.done
    while not curve.done:
        curves.work(state, curve, 0)
    assert curve.values == whole(state).values


def test_turning_the_number_on_the_axis_computes_nothing_again(made):
    curves, state = Curves(), Settings(devices=2)
    curve = curves.curve(state, "bubble", "microbatches")
    curves.work(state, curve, LONG)
    assert len(made) == len(curve.places)
    other = replace(state, microbatches=9, compare="gpipe")
    assert curves.curve(other, "bubble", "microbatches") is curve
    curves.work(other, curve, LONG)
    assert len(made) == len(curve.places)


def test_turning_anything_else_makes_another_curve(made):
    curves, state = Curves(), Settings(devices=2)
    first = curves.curve(state, "bubble", "microbatches")
    for other in (replace(state, devices=3), replace(state, latency=1), replace(state, schedule="gpipe")):
        assert curves.curve(other, "bubble", "microbatches") is not first
    assert curves.curve(state, "held", "microbatches") is not first
    assert curves.curve(state, "bubble", "devices") is not first
    assert made == []


def test_old_curves_are_forgotten():
    curves = Curves(most=2)
    first = curves.curve(Settings(), "bubble", "microbatches")
    assert curves.curve(Settings(), "bubble", "microbatches") is first
    curves.curve(Settings(), "bubble", "devices")
    curves.curve(Settings(), "bubble", "latency")
    assert curves.curve(Settings(), "bubble", "microbatches") is not first


def test_a_curve_that_there_is_not_is_refused_with_those_there_are():
    with pytest.raises(ConfigurationError, match="no figure 'speed'; the figures are makespan, bubble"):
        Curves().curve(Settings(), "speed", "microbatches")
    with pytest.raises(ConfigurationError, match=r"against one of microbatches, devices.*not 'fixed'"):
        Curves().curve(Settings(), "bubble", "fixed")
