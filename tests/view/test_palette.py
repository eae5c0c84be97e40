from itertools import pairwise

import numpy as np
import pytest

from pipelab.schedules.action import OPS
from pipelab.view import palette

SHADES = [(op, chunk, chunks) for op in OPS for chunks in (1, 2, 3, 4, 8) for chunk in range(chunks)]


def lightness(colour):
    """CIE L*."""
    y = palette.luminance(colour)
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


def rgb(colour):
    return np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])


def as_deuteranope(colour):
    """Machado, Oliveira and Fernandes (2009), deuteranomaly of severity 1, in linear light."""
    part = rgb(colour)
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    seen = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]) @ linear
    seen = seen.clip(0, 1)
    return np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)


def test_every_op_has_a_colour():
    assert set(palette.OPS) == set(OPS)


@pytest.mark.parametrize(("op", "chunk", "chunks"), SHADES)
def test_letters_on_blocks_can_be_read(op, chunk, chunks):
    colour = palette.shade(op, chunk, chunks)
    assert palette.contrast(colour, palette.text_colour(colour)) >= 4.5


def test_words_on_phases_and_beside_the_rows_can_be_read():
    for grey in palette.PHASES.values():
        assert palette.contrast(grey, palette.text_colour(grey)) >= 4.5
    assert palette.contrast("#FFFFFF", palette.CAPTION) >= 4.5
    assert palette.contrast("#FFFFFF", palette.INK) >= 4.5


def test_contrast_is_that_of_wcag():
    assert palette.contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert palette.contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)


def test_ops_can_be_told_apart_in_greyscale():
    found = sorted(lightness(colour) for colour in palette.OPS.values())
    assert min(b - a for a, b in pairwise(found)) >= 10


def test_ops_can_be_told_apart_with_deuteranopia():
    seen = [as_deuteranope(colour) for colour in palette.OPS.values()]
    assert min(np.abs(a - b).max() for k, a in enumerate(seen) for b in seen[:k]) > 0.15


@pytest.mark.parametrize("chunks", [2, 4, 8])
def test_later_chunks_are_darker_and_forwards_stay_lighter_than_backwards(chunks):
    ladders = {op: [lightness(palette.shade(op, c, chunks)) for c in range(chunks)] for op in "FB"}
    for ladder in ladders.values():
        assert ladder == sorted(ladder, reverse=True)
        assert ladder[0] - ladder[-1] > 12
    assert min(ladders["F"]) > max(ladders["B"])


def test_one_chunk_has_the_plain_colour():
    assert {op: palette.shade(op) for op in OPS} == dict(palette.OPS)
