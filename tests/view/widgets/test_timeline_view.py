from __future__ import annotations

import json
import re

import pytest

from pipelab import TimelineView, build_schedule, plot_timeline
from pipelab.view.widgets.scene import scene
from tests.view.scenes import SCENES, measured, predicted


def test_it_draws_from_the_scene_of_its_timeline():
    timeline = predicted("1f1b", 2, 4)
    view = json.loads(TimelineView(timeline).view)
    assert view == json.loads(json.dumps({"scenes": [scene(timeline)], "critical": False}))
    assert TimelineView(timeline).kind == "timeline"


def test_the_critical_path_may_be_shown_from_the_start():
    assert json.loads(TimelineView(predicted("1f1b", 2, 2), critical=True).view)["critical"] is True


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
