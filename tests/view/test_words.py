from dataclasses import replace

import pytest

from pipelab.schedules import build_schedule
from pipelab.view import words
from pipelab.view.memory import held
from tests.view.scenes import measured, predicted


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (14, "units", "14 units"),
        (10.5, "units", "10.5 units"),
        (123456.7, "units", "123457 units"),
        (1.5, "s", "1.5 s"),
        (0.3521, "s", "352.1 ms"),
        (2.5e-5, "s", "25 µs"),
        (0, "s", "0 s"),
    ],
)
def test_times(value, unit, shown):
    assert words.time_words(value, unit) == shown


def test_times_beside_others_share_their_unit():
    assert words.time_words(0.25, "s", 3.0) == "0.25 s"


@pytest.mark.parametrize(("value", "shown"), [(3 / 7, "42.9%"), (0, "0.0%"), (-2e-16, "0.0%"), (1, "100.0%")])
def test_percentages(value, shown):
    assert words.percent(value) == shown


def test_titles():
    assert words.schedule_title(build_schedule("1f1b", 2, 2)) == "1F1B"
    assert words.schedule_title(build_schedule("gpipe", 2, 2, recompute=True)) == "GPipe with recomputation"
    assert words.schedule_title(replace(build_schedule("1f1b", 2, 2), name="mine")) == "mine"


def test_sizes():
    assert words.size_words(build_schedule("1f1b", 1, 1)) == "p = 1 device, m = 1 micro-batch"
    assert words.size_words(build_schedule("naive", 4, 4)) == "p = 4 devices, m = 1 micro-batch of weight 4"
    assert words.size_words(build_schedule("interleaved", 2, 2, 2)).endswith("v = 2 chunks per device")
    two_ways = words.size_words(build_schedule("chimera", 4, 4))
    assert two_ways == "p = 4 devices, m = 4 micro-batches, 2 stages on each device, each of them on 2 devices"
    uneven = build_schedule("1f1b", 4, 12).for_batch(64)
    assert words.size_words(uneven) == "p = 4 devices, m = 12 micro-batches of uneven size"


def test_a_timeline_in_words():
    timeline = predicted("1f1b", 4, 8)
    assert words.alt_timeline(timeline) == (
        "Schedule 1F1B (1f1b), p = 4 devices, m = 8 micro-batches, v = 1 chunk per device. "
        f"Clock: predicted from costs. Makespan {timeline.makespan:g} units. "
        f"Bubble fraction {timeline.bubble_fraction:.1%}. Peak micro-batches in flight on devices 0 to 3: 4, 3, 2, 1."
    )


def test_peaks_are_bytes_where_they_are_known_else_sequences():
    assert "Peak activation bytes on devices 0 to 1: 38 MB, 19 MB." in words.alt_timeline(
        predicted("1f1b", 2, 4, batch=64, activation_bytes=19e6)
    )
    assert "Peak sequences in flight on devices 0 to 1: 32, 16." in words.alt_timeline(
        predicted("1f1b", 2, 4, batch=64)
    )
    assert "Peak micro-batches in flight on device 0: 1." in words.alt_timeline(predicted("1f1b", 1, 4))


def test_the_clock_is_named_with_its_note():
    timeline = measured(build_schedule("1f1b", 2, 2))
    assert timeline.clock_name in words.alt_timeline(timeline)
    assert "median of 5 steps" in words.alt_timeline(timeline)


def test_lanes_say_how_much_of_the_messages_is_hidden():
    said = "Lanes below a row: what the device sends, then what it receives. "
    slow = predicted("1f1b", 2, 4, latency=0.5)
    assert words.lanes_note(slow) == f"{said}37.5% of the messages' time is hidden: the receiver works meanwhile."
    assert words.lanes_note(predicted("1f1b", 2, 4)) == f"{said}No message takes any time."


def test_memory_says_what_is_held_fixed():
    one = [predicted("1f1b", 4, 4, batch=64)]
    assert words.memory_note(one, held(one)).endswith("A micro-batch has 16 sequences.")
    same_batch = [predicted("1f1b", 4, m, batch=64) for m in (4, 8)]
    assert words.memory_note(same_batch, held(same_batch)).endswith("Each has the same batch, of 64 sequences.")
    same_microbatch = [predicted("1f1b", 4, m, batch=16 * m) for m in (4, 8)]
    assert words.memory_note(same_microbatch, held(same_microbatch)).endswith("A micro-batch has 16 sequences.")
    unknown = [predicted("1f1b", 4, 4)]
    assert "sequence" not in words.memory_note(unknown, held(unknown))
    assert words.memory_note(unknown, []) == ""
