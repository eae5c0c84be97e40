import warnings

import pytest

from pipelab.errors import ConfigurationError
from pipelab.schedules import build_schedule
from pipelab.view import plot_schedules
from tests.view.scenes import assert_texts_have_room, axes_of, boxes, measured, predicted, texts

FOUR = [predicted(name, 4, 4, backward=2, batch=64) for name in ("naive", "gpipe", "1f1b")]
FOUR.append(predicted("interleaved", 4, 4, 2, backward=2, batch=64))


def test_all_stand_on_one_axis_with_a_mark_at_each_makespan():
    picture = plot_schedules(FOUR)
    axes = axes_of(picture, "time")
    marks = [line.get_xdata()[0] for line in axes.lines if line.get_gid() == "mark"]
    assert marks == [timeline.makespan for timeline in FOUR]
    assert axes.get_xlim() == (0, max(marks))
    assert [text.get_text() for text in texts(picture, "makespan")] == [
        "48 units",
        "21 units",
        "21 units",
        "16.5 units",
    ]
    lengths = [span.duration for timeline in FOUR for span in timeline.spans]
    assert sorted(right - left for left, right, *_ in boxes(picture, "blocks")) == pytest.approx(sorted(lengths))


def test_each_has_its_title_and_figures():
    picture = plot_schedules(FOUR, titles=["a", "b", "c", "d"], title="Four")
    assert [text.get_text() for text in texts(picture, "title")] == ["a", "b", "c", "d"]
    figures = [text.get_text() for text in texts(picture, "figures")]
    for timeline, line in zip(FOUR, figures, strict=True):
        assert line == f"makespan {timeline.makespan:g} units · bubble fraction {timeline.bubble_fraction:.1%}"
    assert picture.alt.startswith("Four. 4 timelines on one time axis. 1: a. Schedule Naive (naive), p = 4 devices")
    assert "4: d. Schedule Interleaved 1F1B (interleaved)" in picture.alt


def test_strips_are_left_out_unless_asked_for():
    assert texts(plot_schedules(FOUR), "peak") == []
    picture = plot_schedules(FOUR, memory=True, phases=True)
    peaks = [f"peak {peak:g}" for timeline in FOUR for peak in timeline.peak_sequences]
    assert [text.get_text() for text in texts(picture, "peak")] == peaks
    assert texts(picture, "phase")


LONG = "a title that goes on and on, to see whether the figures take the next line where they have to, and it shows"


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("width", [None, 6])
@pytest.mark.parametrize("titles", [None, [LONG, "short", "", LONG]])
def test_nothing_is_cut_off_and_no_texts_overlap(memory, width, titles):
    picture = plot_schedules(FOUR, titles, memory=memory, phases=memory, width=width)
    assert_texts_have_room(picture)


def test_clocks_are_named_once_where_they_agree_else_each():
    same = [measured(build_schedule(name, 2, 4)) for name in ("gpipe", "1f1b")]
    said = " ".join(text.get_text() for text in texts(plot_schedules(same)))
    assert said.count("Clock: device (") == 1
    mixed = [measured(build_schedule("1f1b", 2, 4)), predicted("1f1b", 2, 4, unit="s")]
    said = " ".join(text.get_text() for text in texts(plot_schedules(mixed, ["run", "model"])))
    assert "Clocks: run: device (" in said
    assert "model: predicted from costs" in said


def test_mixed_units_are_refused_by_name():
    mixed = [predicted("gpipe", 2, 4), measured(build_schedule("1f1b", 2, 4))]
    with pytest.raises(ConfigurationError, match=r"'model' is in units, 'run' is in s; .*plot_prediction"):
        plot_schedules(mixed, ["model", "run"])


def test_nothing_to_draw_and_titles_that_do_not_match_are_refused():
    with pytest.raises(ConfigurationError, match="no timeline to draw"):
        plot_schedules([])
    with pytest.raises(ConfigurationError, match="3 titles for 4 timelines"):
        plot_schedules(FOUR, ["a", "b", "c"])
    with pytest.raises(ConfigurationError, match="one text for 4 timelines"):
        plot_schedules(FOUR, "abcd")


def test_pipelines_of_different_sizes_are_drawn_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = plot_schedules(
            [predicted("1f1b", 2, 3), predicted("interleaved", 16, 16, 4), predicted("gpipe", 1, 1)]
        )
        assert picture.png()
