import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipelab.view.letters import FONT, SIZES, best_fit, fits, text_width, wrap


@pytest.mark.parametrize("text", ["F0", "12B127", "W8", "makespan 14 units · bubble"])
@pytest.mark.parametrize("size", SIZES)
def test_widths_are_those_that_are_drawn(text, size):
    figure = Figure(dpi=200)
    drawn = figure.text(0, 0, text, fontsize=size, fontfamily=FONT)
    width = drawn.get_window_extent(FigureCanvasAgg(figure).get_renderer()).width * 72 / 200
    assert text_width(text, size) == pytest.approx(width, abs=1.0, rel=0.03)


def test_the_longest_form_wins_then_the_largest_size():
    forms = ("4F0", "F0", "0")
    assert best_fit(forms, 100, 30, 9) == ("4F0", 9)
    assert best_fit(forms, 100, 30, 8) == ("4F0", 8)
    assert best_fit(forms, text_width("4F0", 7) + 2, 30, 9) == ("4F0", 7)
    assert best_fit(forms, text_width("F0", 7) + 2, 30, 9) == ("F0", 7)
    assert best_fit(forms, text_width("0", 7) + 2, 30, 9) == ("0", 7)
    assert best_fit(forms, 3, 30, 9) is None
    assert best_fit(forms, 100, 8, 9) is None  # too flat for any size


def test_what_fits_is_narrower_and_lower_than_its_block():
    assert fits("F0", 9, text_width("F0", 9) + 2, 11)
    assert not fits("F0", 9, text_width("F0", 9) + 1, 11)
    assert not fits("F0", 9, 100, 10)


@pytest.mark.parametrize("width", [60, 120, 200, 1000])
def test_wrapped_lines_fit_and_keep_every_word(width):
    text = "1F1B: p = 4 devices, m = 8 micro-batches. Clock: predicted from costs. Counting starts at 0."
    lines = wrap(text, 8, width)
    assert " ".join(lines) == text
    assert all(text_width(line, 8) <= width for line in lines)
    assert not any(line.startswith("=") or line.endswith("=") for line in lines)


def test_lines_are_about_equally_long():
    lines = wrap("one two three four five six seven eight nine ten", 8, 160)
    assert len(lines) == 2
    assert abs(text_width(lines[0], 8) - text_width(lines[1], 8)) < 60


def test_a_word_that_is_too_long_stands_alone():
    assert wrap("a verylongwordindeed b", 8, 20) == ["a", "verylongwordindeed", "b"]
    assert wrap("", 8, 20) == [""]
