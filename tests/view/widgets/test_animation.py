from __future__ import annotations

import base64
import html
import io
import itertools
import re

import numpy as np
import pytest
from PIL import Image, ImageSequence

from pipelab import Costs, build_schedule, plot_animation, simulate
from pipelab.errors import ConfigurationError
from pipelab.view import plot_prediction, plot_schedules
from pipelab.view.widgets.animation import Animation
from pipelab.view.widgets.scene import scene
from tests.view.scenes import FUSED, measured, predicted


@pytest.fixture(scope="module")
def moving():
    return plot_animation(predicted("1f1b", 4, 4))


def frames(animation):
    return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(Image.open(io.BytesIO(animation.gif)))]


def test_its_frames_are_the_finished_picture_then_the_run_from_its_start_to_its_end(moving):
    times = moving.times
    assert times[0] == times[-1] == 14
    assert times[1] == 0
    assert list(times[1:]) == sorted(times[1:])
    found = frames(moving)
    assert len(found) == len(times)
    assert (found[0] == found[-1]).all()
    assert all((a != b).any() for a, b in itertools.pairwise(found)), "each frame differs from the one before"


def test_it_shows_every_moment_of_a_run_whose_actions_are_equally_long(moving):
    assert set(range(15)) <= {round(time, 9) for time in moving.times}


def test_what_is_still_to_come_is_pale(moving):
    """Pixels in the colour of a forward or a backward: more and more of them among the rows."""
    still = moving.picture.pixels()
    top = round(moving.picture.rows[1] * still.height)

    def coloured(frame):
        rows = frame[top + (frame.shape[0] - still.height) :].astype(int)
        return int((rows.max(axis=2) - rows.min(axis=2) > 100).sum())

    counts = [coloured(frame) for frame in frames(moving)]
    assert counts[1] < counts[0] / 20
    assert counts[-1] == counts[0]
    assert counts[1:] == sorted(counts[1:])


def test_the_file_plays_a_few_times_and_rests_on_the_finished_picture(moving):
    with Image.open(io.BytesIO(moving.gif)) as file:
        assert file.info["loop"] == 2
        rests = [frame.info["duration"] for frame in ImageSequence.Iterator(file)]
    assert rests[0] == rests[-1] > 2000
    assert set(rests[1:-1]) == {100}
    assert 5 <= sum(rests[1:-1]) / 1000 <= 12, "seconds"


def test_it_is_small_enough_for_a_page():
    assert len(plot_animation(predicted("1f1b", 4, 4), width=8.5).gif) < 300_000
    assert len(plot_animation(predicted("interleaved", 8, 32, 2)).times) <= 100


def test_a_page_gets_words_and_who_wants_less_motion_the_finished_picture(moving):
    bundle = moving._repr_mimebundle_()
    [source] = re.findall(
        r'<source media="\(prefers-reduced-motion: reduce\)" srcset="data:image/png;base64,([^"]*)">',
        bundle["text/html"],
    )
    assert base64.b64decode(source) == moving.picture.png()
    [(alt, data)] = re.findall(r'<img alt="([^"]*)"[^>]* src="data:image/gif;base64,([^"]*)">', bundle["text/html"])
    assert base64.b64decode(data) == moving.gif
    assert html.unescape(alt) == moving.alt == bundle["text/plain"]
    assert "Makespan 14 units" in alt
    assert bundle["text/html"].startswith("<details open><summary>")
    assert set(moving._repr_mimebundle_(include=["text/plain"])) == {"text/plain"}


@pytest.mark.parametrize(("suffix", "start"), [("gif", b"GIF89a"), ("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_it_is_saved_by_suffix(moving, tmp_path, suffix, start):
    path = moving.save(tmp_path / "new" / f"run.{suffix}")
    assert path.read_bytes().startswith(start)


def test_other_suffixes_are_refused_with_what_works(moving, tmp_path):
    with pytest.raises(ConfigurationError, match=re.escape("saved as .gif; 'run.mp4' is not; try 'run.gif'")):
        moving.save(tmp_path / "run.mp4")


def test_equal_timelines_are_equal_bytes():
    assert plot_animation(predicted("gpipe", 2, 2)).gif == plot_animation(predicted("gpipe", 2, 2)).gif


@pytest.mark.parametrize(
    "made",
    [
        lambda: plot_animation(simulate(FUSED, Costs(fused={"FB": 0.75}))),
        lambda: plot_animation(predicted("1f1b", 16, 16, latency=0.5)),
        lambda: plot_animation(predicted("1f1b", 1, 2), width=5),
        lambda: plot_animation(measured(build_schedule("interleaved", 4, 8, 2))),
    ],
    ids=["fused", "many devices and slow messages", "one device", "measured, with updates"],
)
def test_any_timeline_can_be_played(made):
    assert len(frames(made())) > 30


def test_several_timelines_run_on_one_clock_each_with_its_own_devices():
    pair = [predicted("gpipe", 2, 2), predicted("1f1b", 2, 4)]
    both = Animation(plot_schedules(pair), [scene(timeline) for timeline in pair])
    assert both.times[0] == max(timeline.makespan for timeline in pair)
    alone = plot_animation(pair[0])
    extra = frames(both)[0].shape[0] - both.picture.pixels().height
    assert extra == 2 * (frames(alone)[0].shape[0] - alone.picture.pixels().height)
    run = measured(build_schedule("1f1b", 2, 2))
    laid = Animation(plot_prediction(run, run), [scene(run), scene(run)], ["predicted", "measured"])
    assert len(frames(laid)) > 30
