from __future__ import annotations

from pipelab.teaching.design.pareto import plot_standings
from pipelab.teaching.design.standing import Standing

FOUND = [
    Standing("mine", True, (0.9,), 4, 48),
    Standing("near", False, (0.9, 0.91), 4, 48),
    Standing("small", False, (1.1,), 2, 48),
    Standing("beaten", False, (1.2,), 5, 48),
]


def test_each_is_named_once_no_two_names_meet_and_the_line_leaves_out_who_is_beaten():
    picture = plot_standings(FOUND, bound=0.7)
    (axes,) = picture.axes
    labels = {text.get_text(): text for text in axes.texts}
    assert set(labels) == {one.name for one in FOUND}
    heights = [labels[name].get_position()[1] for name in ("mine", "near")]
    assert heights[1] - heights[0] > 1
    (line,) = [line for line in axes.lines if line.get_gid() == "best"]
    assert list(line.get_xdata()) == [2, 4]
    assert "mine (yours) 4 and 90.0 %" in picture.alt
