import sys
import warnings
from dataclasses import replace

import pytest

from pipelab.schedules import build_schedule
from pipelab.simulation import simulate
from pipelab.view import plot_timeline
from tests.view.scenes import (
    assert_texts_have_room,
    axes_of,
    boxes,
    every,
    measured,
    polygons,
    predicted,
    render,
    texts,
)

ALL = {f"{s.name}-{s.devices}-{s.microbatches}": s for s in every((1, 2, 4, 16), (1, 4, 64))}


@pytest.mark.parametrize("name", ALL)
def test_every_schedule_is_drawn_without_a_warning(name):
    timeline = simulate(ALL[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        render(plot_timeline(timeline))
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_title_figures_and_clock_are_written():
    timeline = predicted("1f1b", 4, 8)
    said = [text.get_text() for text in texts(plot_timeline(timeline))]
    assert "1F1B: p = 4 devices, m = 8 micro-batches" in said
    assert f"makespan {timeline.makespan:g} units · bubble fraction {timeline.bubble_fraction:.1%}" in said
    assert any(timeline.clock_name in line and "Counting starts at 0" in line for line in said)


def test_the_picture_in_words():
    timeline = measured(build_schedule("interleaved", 2, 4, 2))
    alt = plot_timeline(timeline, title="Mine").alt
    peaks = ", ".join(f"{peak:.4g}" for peak in timeline.peak_sequences)
    for said in (
        "Mine. Schedule Interleaved 1F1B (interleaved), p = 2 devices, m = 4 micro-batches, v = 2 chunks per device.",
        f"Clock: {timeline.clock_name}.",
        f"Makespan {timeline.makespan * 1e3:.4g} ms.",
        f"Bubble fraction {timeline.bubble_fraction:.1%}.",
        f"Peak sequences in flight on devices 0 to 1: {peaks}.",
    ):
        assert said in alt


def test_an_own_title_replaces_the_default_and_an_empty_one_leaves_it_out():
    timeline = predicted("1f1b", 2, 2)
    assert "Mine $x_1$" in [text.get_text() for text in texts(plot_timeline(timeline, title="Mine $x_1$"))]
    heights = [plot_timeline(timeline, title=title).get_figheight() for title in (None, "")]
    assert heights[1] < heights[0]


def test_memory_and_phases_can_be_left_out():
    picture = plot_timeline(predicted("1f1b", 2, 4), memory=False, phases=False)
    assert polygons(picture, "memory") == boxes(picture, "phases") == texts(picture, "peak") == []
    said = {text.get_text() for text in texts(picture)}
    assert not said & {"warm-up", "micro-batches in flight"}


def test_updates_stand_behind_a_line_at_the_makespan():
    timeline = measured(build_schedule("1f1b", 4, 8))
    axes = axes_of(plot_timeline(timeline), "time")
    (mark,) = (line for line in axes.lines if line.get_gid() == "mark")
    assert mark.get_xdata()[0] == pytest.approx(timeline.makespan * 1e3)
    assert axes.get_xlim()[1] == pytest.approx((timeline.makespan + 0.016) * 1e3)


def test_without_updates_there_is_no_line():
    axes = axes_of(plot_timeline(predicted("1f1b", 4, 8)), "time")
    assert [line for line in axes.lines if line.get_gid() == "mark"] == []


def test_a_timeline_that_starts_late_is_drawn_from_its_start():
    timeline = predicted("1f1b", 2, 2)
    late = replace(
        timeline, spans=tuple(replace(span, start=span.start + 100, end=span.end + 100) for span in timeline.spans)
    )
    assert boxes(plot_timeline(late), "blocks") == boxes(plot_timeline(timeline), "blocks")


def test_a_timeline_without_spans_is_drawn():
    assert plot_timeline(replace(predicted("1f1b", 2, 2), spans=())).png()


def test_lanes_show_each_message_below_the_devices_that_send_and_receive_it():
    timeline = predicted("1f1b", 2, 2, latency=0.5)
    picture = plot_timeline(timeline, lanes=True)
    bars = boxes(picture, "messages")
    assert sorted(bar[:2] for bar in bars) == sorted((m.sent, m.arrived) for m in timeline.messages for _ in range(2))
    rows = boxes(picture, "blocks")
    first = max(bottom for _, _, _, bottom in rows if bottom < max(top for _, _, top, _ in rows))
    assert all(top >= first for _, _, top, _ in bars), "below the first device's row"
    assert [text.get_text() for text in texts(picture, "lane")] == ["sends", "receives"] * 2
    assert_texts_have_room(picture)
    assert boxes(plot_timeline(timeline), "messages") == []
    assert picture.alt.endswith("25.0% of the messages' time is hidden: the receiver works meanwhile.")
