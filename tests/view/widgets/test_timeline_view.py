from __future__ import annotations

import json
import re

import pytest

from pipelab import ConfigurationError, TimelineView, build_schedule, plot_timeline
from pipelab.view.widgets.scene import scene
from tests.view.scenes import SCENES, measured, predicted


def test_it_draws_from_the_scene_of_its_timeline():
    timeline = predicted("1f1b", 2, 4)
    view = json.loads(TimelineView(timeline).view)
    rest = {"critical": False, "play": False, "phases": True, "lanes": False}
    assert view == json.loads(json.dumps({"scenes": [scene(timeline)], **rest}))
    assert TimelineView(timeline).kind == "timeline"


def test_the_critical_path_may_be_shown_from_the_start():
    assert json.loads(TimelineView(predicted("1f1b", 2, 2), critical=True).view)["critical"] is True


def test_lanes_may_be_shown_from_the_start_in_the_widget_and_beside_it():
    timeline = predicted("1f1b", 2, 2, latency=0.5)
    view = TimelineView(timeline, lanes=True)
    assert json.loads(view.view)["lanes"] is True
    assert view.picture().png() == plot_timeline(timeline, lanes=True).png()
    note = json.loads(view.view)["scenes"][0]["blocks"]["lanes"]["note"]
    assert view.picture().alt.endswith(note) and view.animation().alt.endswith(note)


def test_a_title_of_its_own_stands_above_both_the_widget_and_its_picture():
    view = TimelineView(predicted("1f1b", 2, 2), title="Mine")
    assert json.loads(view.view)["scenes"][0]["title"] == "Mine"
    assert view.picture().alt.startswith("Mine. ")


def test_the_picture_beside_it_is_the_static_one():
    timeline = measured(build_schedule("1f1b", 2, 4))
    view = TimelineView(timeline)
    data, _ = view._repr_mimebundle_()
    assert view.picture().png() == plot_timeline(timeline).png()
    assert "application/vnd.jupyter.widget-view+json" in data
    [alt] = re.findall(r'<img alt="([^"]*)"', data["text/html"])
    assert data["text/plain"] == plot_timeline(timeline).alt
    assert len(alt) > 40


@pytest.mark.parametrize("name", ["split", "fused", "flushless", "latency", "interleaved", "one device"])
def test_any_timeline_can_be_shown(name):
    assert len(json.loads(TimelineView(SCENES[name]).view)["scenes"]) == 1


def test_in_words_it_is_its_timeline():
    assert repr(TimelineView(predicted("gpipe", 2, 2))) == (
        "TimelineView(Timeline(gpipe, makespan 6 units, bubble 33.3%, clock predicted from costs))"
    )


def test_what_plays_carries_an_animation_beside_it_and_without_phases_neither_has_any():
    view = TimelineView(predicted("1f1b", 2, 2), play=True, phases=False)
    told = json.loads(view.view)
    assert (told["play"], told["phases"]) == (True, False)
    data, _ = view._repr_mimebundle_()
    assert "data:image/gif;base64," in data["text/html"]
    assert "warm-up" not in [text.get_text() for axes in view.picture().axes for text in axes.texts]


@pytest.mark.parametrize(("kind", "start"), [("picture", b"\x89PNG"), ("svg", b"<?xml"), ("gif", b"GIF89a")])
def test_it_is_saved_beside_the_notebook_and_never_over_another(tmp_path, monkeypatch, kind, start):
    monkeypatch.chdir(tmp_path)
    view = TimelineView(predicted("1f1b", 2, 2))
    paths = [view.save(kind) for _ in range(2)]
    assert [path.stem for path in paths] == ["1f1b", "1f1b-2"]
    assert paths[0].read_bytes().startswith(start)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_what_cannot_be_saved_is_told_what_can():
    with pytest.raises(ConfigurationError, match="'pdf' cannot be saved; save picture, svg and gif"):
        TimelineView(predicted("1f1b", 2, 2)).save("pdf")
