"""The picture of four ways to share: the parts of all devices make up what they should, and the words say it."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from pipelab.errors import ConfigurationError
from pipelab.teaching.parallelism.ways import WAYS, plot_parallelism

SENT = {"data": 14.6e6, "sharded": 21.9e6, "tensor": 151e6, "pipeline": 1.05e6}


def cover(boxes, n=48):
    """How many of ``boxes`` lie over each point of a grid of n x n."""
    middles = (np.arange(n) + 0.5) / n
    across, down = np.meshgrid(middles, middles)
    return sum(
        ((left < across) & (across < right) & (top < down) & (down < low)).astype(int)
        for left, right, top, low in boxes
    )


@pytest.mark.parametrize("p", [1, 2, 4, 8])
@pytest.mark.parametrize("name", WAYS)
def test_every_part_of_model_and_batch_is_somebodys(name, p):
    way = WAYS[name]
    held, batch = (cover([part(r, p) for r in range(p)]) for part in (way.held, way.batch))
    assert (held == (p if way.cut == "whole" else 1)).all()
    assert (batch == (1 if way.splits_batch else p)).all()


def test_a_run_of_layers_lies_across_and_a_part_of_each_layer_down():
    assert WAYS["pipeline"].held(0, 4) == (0, 1, 0, 0.25)
    assert WAYS["tensor"].held(3, 4) == (0.75, 1, 0, 1)


def rectangles(picture):
    (sheet,) = picture.axes
    return [patch for patch in sheet.patches if isinstance(patch, Rectangle)]


def test_what_is_drawn_is_what_each_device_holds():
    drawn = rectangles(plot_parallelism(SENT, devices=4))
    by_label = {label: [r for r in drawn if r.get_label() == label] for label in ("held", "fetched", "batch")}
    assert {label: len(found) for label, found in by_label.items()} == {"held": 16, "fetched": 4, "batch": 16}
    full = max(r.get_width() * r.get_height() for r in by_label["held"])
    shares = [r.get_width() * r.get_height() / full for r in by_label["held"]]
    assert shares == pytest.approx([1] * 4 + [0.25] * 12)
    heights = [r.get_height() for r in by_label["batch"]]
    assert heights == pytest.approx([heights[-1] / 4] * 8 + [heights[-1]] * 8)


def test_the_words_tell_every_way_and_its_figure():
    picture = plot_parallelism(SENT, note="Counted in a run.")
    shown = [text.get_text() for text in picture.axes[0].texts]
    for name, way in WAYS.items():
        assert way.title in shown
        assert way.title.capitalize() in picture.alt
        assert f"a device sends {SENT[name] / 1e6:.1f} MB a step" in shown
    assert picture.alt.endswith("Counted in a run.")
    assert "Counted in a run." in shown


def test_a_way_without_a_figure_is_refused():
    with pytest.raises(ConfigurationError, match="each of data, sharded, tensor, pipeline; got data"):
        plot_parallelism({"data": 1.0})
    with pytest.raises(ConfigurationError, match="devices"):
        plot_parallelism(SENT, devices=0)
