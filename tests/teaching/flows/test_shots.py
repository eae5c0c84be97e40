"""Frames side by side say in words what they show."""

import numpy as np
import pytest

from pipelab.errors import ConfigurationError
from pipelab.teaching.flows.shots import plot_shots

SHOT = np.full((32, 48), 100, np.uint8)


def test_each_shot_has_its_place_and_its_words():
    picture = plot_shots({"taken": SHOT, "moved": SHOT}, title="Two", arrows={"moved": np.ones((2, 3, 2), np.int8)})
    assert [axes.get_label() for axes in picture.axes] == ["taken", "moved"]
    assert "taken, moved" in picture.alt
    assert [len(axes.collections) for axes in picture.axes] == [0, 1]


@pytest.mark.parametrize(
    ("shots", "arrows", "says"),
    [({}, None, "1 to 4"), ({"a": SHOT}, {"b": np.zeros((2, 3, 2), np.int8)}, "no shot 'b'")],
)
def test_what_cannot_be_drawn_is_refused(shots, arrows, says):
    with pytest.raises(ConfigurationError, match=says):
        plot_shots(shots, title="", arrows=arrows)
