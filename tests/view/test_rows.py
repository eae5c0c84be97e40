import pytest

from pipelab.schedules import build_schedule
from pipelab.view import plot_timeline
from pipelab.view.rows import Heights, extent
from tests.view.scenes import measured, predicted, texts


@pytest.mark.parametrize("make", [Heights.alone, Heights.stacked])
def test_more_devices_are_flatter(make):
    pitches = [make(p, True, True).pitch for p in (1, 4, 8, 16, 32)]
    assert pitches == sorted(pitches, reverse=True)


def test_what_is_left_out_takes_no_room():
    with_both, without = Heights.alone(4, True, True), Heights.alone(4, False, False)
    assert without.block_top == 0
    assert without.memory_top == without.blocks
    assert with_both.pitch > without.pitch


def test_updates_belong_to_the_extent_and_not_to_the_makespan():
    timeline = measured(build_schedule("1f1b", 2, 2))
    assert extent(timeline) == pytest.approx(timeline.makespan + 0.008)
    assert extent(predicted("1f1b", 2, 2)) == 6


def test_devices_are_named_from_the_top_with_their_stages():
    picture = plot_timeline(predicted("interleaved", 4, 4, 2))
    names = sorted(texts(picture, "device"), key=lambda text: text.get_position()[1])
    assert [name.get_text() for name in names] == ["device 0", "device 1", "device 2", "device 3"]
    assert [text.get_text() for text in texts(picture, "stages")] == [f"stages {r}, {r + 4}" for r in range(4)]
    assert texts(plot_timeline(predicted("1f1b", 4, 4)), "stages") == []


def test_many_stages_are_shortened():
    picture = plot_timeline(predicted("interleaved", 2, 2, 8))
    assert [text.get_text() for text in texts(picture, "stages")] == ["stages 0, 2, …, 14", "stages 1, 3, …, 15"]


def test_peaks_are_written_beside_the_strips():
    picture = plot_timeline(predicted("1f1b", 4, 8, batch=64, activation_bytes=19.07e6))
    found = [text.get_text() for text in texts(picture, "peak")]
    assert found == ["peak 76.3 MB", "peak 57.2 MB", "peak 38.1 MB", "peak 19.1 MB"]
    assert {text.get_text() for text in texts(picture, "scale")} == {"MB held", "80", "0"}
