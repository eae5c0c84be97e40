import warnings

import pytest

from pipelab.errors import ConfigurationError
from pipelab.schedules import build_schedule
from pipelab.timeline import compare
from pipelab.view import plot_prediction
from tests.view.scenes import assert_texts_have_room, axes_of, boxes, measured, predicted, render, texts

RUN = measured(build_schedule("1f1b", 4, 8))


def said(picture):
    return " ".join(text.get_text() for text in texts(picture))


def marks(picture):
    return [line.get_xdata()[0] for line in axes_of(picture, "time").lines if line.get_gid() == "mark"]


def test_predicted_stands_above_measured_for_each_device():
    picture = plot_prediction(predicted("1f1b", 4, 8, forward=0.01, backward=0.02, unit="s"), RUN)
    labels = sorted(texts(picture, "which"), key=lambda text: text.get_position()[1])
    assert [label.get_text() for label in labels] == ["predicted", "measured"] * 4
    assert len(boxes(picture, "blocks")) == 2 * len(RUN.spans) + len(RUN.updates)


def test_one_unit_has_one_scale():
    model = predicted("1f1b", 4, 8, forward=0.01, backward=0.02, unit="s")
    picture = plot_prediction(model, RUN)
    assert marks(picture) == pytest.approx([model.makespan * 1e3, RUN.makespan * 1e3] * 4)
    assert "stretched" not in said(picture) + picture.alt


def test_another_unit_is_stretched_until_makespans_agree_and_that_is_said():
    model = predicted("1f1b", 4, 8, backward=2)
    picture = plot_prediction(model, RUN)
    assert marks(picture) == pytest.approx([RUN.makespan * 1e3] * 8)
    unit = compare(model, RUN).makespan_ratio * 1e3
    for text in (said(picture), picture.alt):
        assert "stretched so that both makespans agree" in text
        assert f"1 unit is drawn as {unit:.4g} ms" in text


def test_both_figures_and_both_clocks_are_written():
    model = predicted("1f1b", 4, 8, backward=2)
    picture = plot_prediction(model, RUN)
    text = said(picture)
    assert f"makespan {model.makespan:g} units predicted, {RUN.makespan * 1e3:.4g} ms measured" in text
    assert f"fraction {model.bubble_fraction:.1%} predicted, {RUN.bubble_fraction:.1%} measured" in text
    for timeline in (model, RUN):
        assert timeline.clock_name in text
        assert f"Clock: {timeline.clock_name}. Makespan" in picture.alt


def test_another_order_is_said():
    text = said(plot_prediction(predicted("gpipe", 4, 8), RUN))
    assert "did not run the same actions in the same order" in text
    assert "same order" not in said(plot_prediction(predicted("1f1b", 4, 8), RUN))


def test_other_numbers_of_devices_are_refused():
    with pytest.raises(ConfigurationError, match="timelines of 2 and 4 devices"):
        plot_prediction(predicted("1f1b", 2, 8), RUN)


@pytest.mark.parametrize("width", [None, 6])
@pytest.mark.parametrize(("p", "m", "v"), [(1, 1, 1), (4, 8, 2), (16, 32, 2)])
def test_nothing_is_cut_off_and_no_texts_overlap(p, m, v, width):
    schedule = build_schedule("interleaved", p, m, v)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = plot_prediction(predicted("interleaved", p, m, v), measured(schedule), width=width)
        render(picture)
    assert_texts_have_room(picture)
