import re
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.colors import to_hex

from pipelab.schedules import build_schedule
from pipelab.schedules.action import actions_of
from pipelab.view import palette, plot_timeline
from pipelab.view.rows import Heights
from tests.view.scenes import (
    SCENES,
    axes_of,
    boxes,
    drawn,
    extents,
    inside,
    measured,
    pixels,
    polygons,
    predicted,
    texts,
)


def shown(picture, timeline):
    """Factor from the timeline's unit to the axis'."""
    label = axes_of(picture, "time").get_xlabel()
    return {"time (ms)": 1e3, "time (µs)": 1e6}.get(label, 1.0)


def rows_of(timeline):
    """Top and bottom of each device's blocks."""
    heights = Heights.alone(timeline.schedule.devices, phases=True, memory=True)
    tops = [r * heights.pitch + heights.block_top for r in range(timeline.schedule.devices)]
    return [(top, top + heights.blocks) for top in tops]


def on_row(found, row):
    return [box for box in found if box[2] >= row[0] - 1e-6 and box[3] <= row[1] + 1e-6]


@pytest.mark.parametrize("name", SCENES)
def test_every_label_lies_inside_its_block(name):
    picture = drawn(name)
    blocks = boxes(picture, "blocks")
    frames = [pixels(picture, box) for box in blocks]
    centres = np.array([((a + b) / 2, (c + d) / 2) for a, b, c, d in blocks])
    labels = texts(picture, "label")
    size = 72 / picture.dpi
    for label, box in zip(labels, extents(picture, labels), strict=True):
        x, y = label.get_position()
        nearest = int(np.abs(centres - (x, y - 0.365 * label.get_fontsize())).sum(axis=1).argmin())
        assert inside(box, frames[nearest], slack=0.5 / size), label.get_text()


@pytest.mark.parametrize("name", ["1f1b", "1f1b bytes", "gpipe recompute", "naive", "interleaved", "split", "fused"])
def test_labels_are_the_slots_of_the_timeline(name):
    timeline = SCENES[name]
    picture = drawn(name)
    labels = texts(picture, "label")
    for device, (top, bottom) in enumerate(rows_of(timeline)):
        row = [label for label in labels if top <= label.get_position()[1] <= bottom + 1]
        found = [label.get_text() for label in sorted(row, key=lambda label: label.get_position())]
        expected = []
        for span in timeline.on_device(device):
            for action in actions_of(span.slot):
                expected.append(str(action) if timeline.schedule.chunks > 1 else f"{action.op}{action.microbatch}")
        assert found == expected


@pytest.mark.parametrize("name", SCENES)
def test_hatching_covers_exactly_the_idle_time(name):
    timeline = SCENES[name]
    picture = drawn(name)
    factor, idle, blocks = shown(picture, timeline), boxes(picture, "idle"), boxes(picture, "blocks")
    hatches = [shapes.get_hatch() for shapes in axes_of(picture, "time").collections if shapes.get_gid() == "idle"]
    assert all(hatches)
    total = sum(right - left for left, right, *_ in idle)
    p = timeline.schedule.devices
    assert total == pytest.approx(p * timeline.makespan * timeline.bubble_fraction * factor, abs=1e-9 * factor)
    for device, row in enumerate(rows_of(timeline)):
        for left, right, top, bottom in on_row(idle, row):
            assert (top, bottom) == pytest.approx(row)
            for span in timeline.on_device(device):  # touches no slot
                start, end = ((t - timeline.start) * factor for t in (span.start, span.end))
                assert right <= start + 1e-9 or left >= end - 1e-9
    assert len(blocks) == sum(len(actions_of(span.slot)) for span in timeline.spans) + len(timeline.updates)


@pytest.mark.parametrize("name", SCENES)
def test_blocks_stand_where_the_slots_ran(name):
    timeline = SCENES[name]
    picture = drawn(name)
    factor, blocks = shown(picture, timeline), boxes(picture, "blocks")
    for device, row in enumerate(rows_of(timeline)):
        expected = [
            ((span.start - timeline.start) * factor, (span.end - timeline.start) * factor)
            for span in timeline.on_device(device)
            for _ in actions_of(span.slot)
        ]
        expected += [
            ((span.start - timeline.start) * factor, (span.end - timeline.start) * factor)
            for span in timeline.updates
            if span.device == device
        ]
        found = [(left, right) for left, right, *_ in on_row(blocks, row)]
        assert np.allclose(sorted(found), sorted(expected))


def test_parts_of_a_fused_slot_share_its_block():
    picture = drawn("fused")
    frames = boxes(picture, "fused")
    assert len(frames) == 3
    for left, right, top, bottom in frames:
        parts = [
            box for box in boxes(picture, "blocks") if box[0] == left and box[1] == right and top <= box[2] < bottom
        ]
        assert sorted((a, b) for _, _, a, b in parts) == [(top, (top + bottom) / 2), ((top + bottom) / 2, bottom)]


def test_chunks_have_shades():
    picture = drawn("interleaved")
    (shapes,) = (s for s in axes_of(picture, "time").collections if s.get_gid() == "blocks")
    found = {to_hex(colour).upper() for colour in shapes.get_facecolor()}
    assert found == {palette.shade(op, chunk, 2) for op in "FB" for chunk in (0, 1)}


def test_letters_are_black_or_white_by_contrast():
    picture = drawn("interleaved")
    (shapes,) = (s for s in axes_of(picture, "time").collections if s.get_gid() == "blocks")
    colours = {to_hex(c).upper() for c in shapes.get_facecolor()}
    inks = {to_hex(label.get_color()).upper() for label in texts(picture, "label")}
    assert inks == {palette.text_colour(colour) for colour in colours}


def test_blocks_that_are_too_narrow_carry_no_letters():
    assert texts(drawn("tall"), "label") == []
    assert texts(drawn("interleaved wide"), "label") == []


def test_narrow_blocks_carry_the_number_alone():
    labels = {label.get_text() for label in texts(drawn("many chunks"), "label")}
    assert labels == {"0", "1", "2", "3"}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("m", [4, 6, 8])
def test_labels_of_a_measured_picture_have_one_form(m, seed):
    """Story: forwards were `7`, and backwards `4B0` or `B0`, as the room of each block had it."""
    costs = measured(build_schedule("interleaved", 4, m, 2), seed=seed)
    found = {re.sub(r"\d", "0", label.get_text()) for label in texts(plot_timeline(costs), "label")} - {"U"}
    assert len({form.replace("F", "B") for form in found}) == 1, found


def test_equally_long_ops_have_equally_long_labels():
    for m in range(4, 24, 3):
        labels = [label.get_text() for label in texts(plot_timeline(predicted("1f1b", 4, m)), "label")]
        assert {label[0].isalpha() for label in labels} in ({True}, {False}, set()), m


def test_an_update_at_the_flush_is_one_letter_and_a_listed_one_says_which():
    flush = [label.get_text() for label in texts(drawn("measured chunks"), "label")]
    assert flush.count("U") == 4
    listed = [label.get_text() for label in texts(drawn("flushless"), "label")]
    assert {"U0", "U1"} <= set(listed)


def test_memory_curves_hold_what_the_timeline_holds():
    timeline = SCENES["1f1b bytes"]
    heights = Heights.alone(4, phases=True, memory=True)
    for device, corners in enumerate(polygons(drawn("1f1b bytes"), "memory")):
        floor = device * heights.pitch + heights.memory_top + heights.memory
        assert corners[:, 1].max() == pytest.approx(floor)
        high = (floor - corners[:, 1].min()) / heights.memory
        assert high == pytest.approx(timeline.peak_bytes[device] / 80e6)
        at = 10.5  # in the steady phase
        level = next(y for (x0, y), (x1, _) in pairwise(corners) if x0 <= at < x1)
        value = [held for t, held in timeline.holdings[device].steps if t <= at][-1]
        assert (floor - level) / heights.memory * 80e6 == pytest.approx(value)


def test_phases_are_strips_from_first_slot_to_last():
    picture = drawn("1f1b bytes")
    first = [box for box in boxes(picture, "phases") if box[2] == 0]
    assert [(left, right) for left, right, *_ in first] == [(0, 3), (3, 16), (17, 22)]
    assert [text.get_text() for text in texts(picture, "phase")].count("steady") == 4


def test_thousands_of_slots_are_few_artists():
    """One artist a slot took seconds. How long it takes is for benchmarks: a slow machine fails no test."""
    timeline = measured(build_schedule("interleaved", 16, 128, 2))
    assert len(timeline.spans) == 8192
    picture = plot_timeline(timeline)
    picture.png()
    assert len(axes_of(picture, "time").get_children()) < 150
