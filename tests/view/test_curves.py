from itertools import pairwise

import pytest

from pipelab.errors import ConfigurationError
from pipelab.view.curves import plot_curves
from tests.view.scenes import axes_of, render

M = [1, 2, 4, 8, 16]
FIXED = {"batch fixed": [64] * 5, "micro-batch fixed": [4, 8, 16, 32, 64]}


def draw(curves=FIXED, **changed):
    said = {"across": "micro-batches m", "up": "sequences", "title": "Held", "note": "Counted."} | changed
    return plot_curves(M, curves, **said)


def test_curves_hold_what_was_given_and_start_at_zero():
    axes = axes_of(draw(), "curves")
    assert [list(line.get_ydata()) for line in axes.lines] == list(FIXED.values())
    assert axes.get_ylim()[0] == 0
    assert list(axes.get_xticks()) == M


def test_many_places_do_not_write_over_each_other():
    picture = plot_curves(range(48), {"one": range(48)}, across="layer", up="ms", title="Each layer")
    render(picture)
    boxes = [label.get_window_extent() for label in axes_of(picture, "curves").get_xticklabels() if label.get_text()]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_a_logarithmic_axis_gives_each_doubling_the_same_width_and_names_the_places():
    picture = draw(log=True)
    render(picture)
    axes = axes_of(picture, "curves")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "4", "8", "16"]
    across = [axes.transData.transform((m, 0))[0] for m in M]
    widths = [right - left for left, right in pairwise(across)]
    assert widths == pytest.approx([widths[0]] * 4)
    assert axes.get_ylim()[0] == 0
    assert not axes.get_xticks(minor=True).size
    assert "(logarithmic)" in picture.alt
    with pytest.raises(ConfigurationError, match="places above 0, got 0"):
        plot_curves([0, 1], {"one": [1, 2]}, across="m", up="bytes", title="Held", log=True)


def test_a_mark_is_an_upright_line_with_its_name_on_the_page_and_in_the_text():
    picture = draw(marks={"m* = 5.1": 5.1, "far right": 15, "beyond": 20}, log=True)
    render(picture)
    axes = axes_of(picture, "curves")
    marked = [line for line in axes.lines if line.get_label() == "_mark"]
    assert [line.get_xdata()[0] for line in marked] == [5.1, 15]
    assert [text.get_text() for text in axes.texts] == ["m* = 5.1", "far right"]
    boxes = [text.get_window_extent() for text in axes.texts]
    (title,) = [text for text in picture.texts if text.get_gid() == "title"]
    assert all(picture.bbox.x0 <= box.x0 and box.x1 <= picture.bbox.x1 for box in boxes)
    assert all(box.y0 >= axes.get_window_extent().y1 for box in boxes), "above the frame"
    assert not any(box.overlaps(title.get_window_extent()) for box in boxes)
    assert "marked, m* = 5.1, at 5.1" in picture.alt
    assert "beyond" not in picture.alt


def test_curves_differ_in_more_than_colour():
    lines = axes_of(draw(), "curves").lines
    assert len({line.get_marker() for line in lines}) == len({line.get_linestyle() for line in lines}) == len(lines)


def test_alternative_text_holds_title_note_and_values():
    alt = draw().alt
    for part in ("Held.", "Counted.", "sequences over micro-batches m", "micro-batch fixed: 4 at 1", "64 at 16"):
        assert part in alt


@pytest.mark.parametrize("note", ["", "Where the values come from. " * 12])
def test_note_and_axis_stay_on_the_page(note):
    picture = draw(note=note)
    render(picture)
    page = picture.bbox
    for text in [*picture.texts, axes_of(picture, "curves").xaxis.label]:
        box = text.get_window_extent()
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0


def test_too_many_curves_and_uneven_lengths_are_refused():
    with pytest.raises(ConfigurationError, match="1 to 5 curves, got 6"):
        draw({str(k): [1] * 5 for k in range(6)})
    with pytest.raises(ConfigurationError, match="3 values for 5 places"):
        draw({"short": [1, 2, 3]})
