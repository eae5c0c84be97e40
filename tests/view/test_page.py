import pytest

from pipelab.errors import ConfigurationError
from pipelab.view import plot_timeline
from pipelab.view.page import inner_width
from tests.view.scenes import SCENES, assert_texts_have_room, axes_of, drawn, predicted, texts


@pytest.mark.parametrize("width", [None, 6])
@pytest.mark.parametrize("name", SCENES)
def test_nothing_is_cut_off_and_no_texts_overlap(name, width):
    picture = drawn(name, width)
    assert_texts_have_room(picture)


@pytest.mark.parametrize("name", SCENES)
def test_no_letter_is_smaller_than_7_points(name):
    picture = drawn(name)
    assert min(text.get_fontsize() for text in texts(picture)) >= 7


def test_the_default_width_is_that_of_a_laptop_and_heights_follow_the_devices():
    sizes = [plot_timeline(predicted("1f1b", p, 4)).get_size_inches() for p in (1, 4, 8, 16)]
    assert {width for width, _ in sizes} == {10.5}
    heights = [height for _, height in sizes]
    assert heights == sorted(heights)
    assert heights[-1] < 10


@pytest.mark.parametrize("width", [0, -1, 4.9, 101, float("nan")])
def test_a_width_without_room_is_refused(width):
    with pytest.raises(ConfigurationError, match=r"width must be 5 to 100 inches, got .*; try 10.5"):
        plot_timeline(predicted("1f1b", 2, 2), width=width)


def test_inner_width():
    assert inner_width(10) == 720 - 24


@pytest.mark.parametrize(("seconds", "label"), [(2.0, "time (s)"), (0.02, "time (ms)"), (2e-5, "time (µs)")])
def test_the_axis_is_in_a_unit_that_suits(seconds, label):
    picture = plot_timeline(predicted("1f1b", 1, 1, forward=seconds, backward=0, unit="s"))
    axes = axes_of(picture, "time")
    assert axes.get_xlabel() == label
    assert 1 <= axes.get_xlim()[1] < 1000


def test_whole_units_have_whole_ticks():
    axes = axes_of(plot_timeline(predicted("1f1b", 4, 4)), "time")
    assert axes.get_xlabel() == "time (units)"
    assert all(tick == int(tick) for tick in axes.get_xticks())
