"""Small pictures of digits: drawn in the fonts that Matplotlib ships, then turned, moved, dimmed and made noisy."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pipelab.view.letters import FONT
from pipelab.view.palette import CAPTION, INK
from pipelab.view.picture import Picture, plain_style

__all__ = ["SIDE", "digits", "plot_pictures"]

SIDE = 16
"""Pixels of a picture's side."""
_NAME, _EACH = 2.2, 0.6  # inches: the column of names, and a picture
_BOLD_TOO = ("DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono", "STIXGeneral")
_STYLES = [(font, weight) for font in _BOLD_TOO for weight in ("normal", "bold")]
_STYLES += [(font, "normal") for font in ("cmr10", "cmss10", "cmtt10")]


@cache
def _glyphs() -> Tensor:
    """Each digit in each font and weight, large: (10, fonts, 48, 48), 0 to 1."""
    figure = Figure((len(_STYLES), 10), dpi=48)
    canvas = FigureCanvasAgg(figure)
    for row in range(10):
        for column, (font, weight) in enumerate(_STYLES):
            place = (column + 0.5) / len(_STYLES), 1 - (row + 0.5) / 10
            figure.text(*place, str(row), family=font, weight=weight, size=48, ha="center", va="center_baseline")
    canvas.draw()
    ink = 1 - np.asarray(canvas.buffer_rgba())[..., 0] / np.float32(255)
    return torch.from_numpy(ink).reshape(10, 48, len(_STYLES), 48).permute(0, 2, 1, 3).contiguous()


def digits(labels: Tensor, seed: int) -> Tensor:
    """A picture of each digit in ``labels``: (pictures, 1, 16, 16). All that changes is drawn from ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    count, glyphs = len(labels), _glyphs()

    def drawn(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    picked = glyphs[labels, torch.randint(glyphs.shape[1], (count,), generator=generator)]
    turn, size = drawn(-0.25, 0.25), drawn(0.55, 0.75)
    cos, sin = size * torch.cos(turn), size * torch.sin(turn)
    rows = (cos, -sin, drawn(-0.1, 0.1)), (sin, cos, drawn(-0.1, 0.1))
    moved = torch.stack([torch.stack(row, -1) for row in rows], 1)
    grid = affine_grid(moved, [count, 1, 2 * SIDE, 2 * SIDE], align_corners=False)
    fine = grid_sample(picked[:, None], grid, align_corners=False)
    small = torch.nn.functional.avg_pool2d(fine, 2) * drawn(0.6, 1.0).view(-1, 1, 1, 1)
    return small + torch.randn(small.shape, generator=generator) * 0.05


@plain_style()
def plot_pictures(rows: Mapping[str, Tensor], *, title: str, note: str = "") -> Picture:
    """Draw rows of pictures (name -> (pictures, 1, 16, 16)) below one another. ``note`` stands below."""
    most = max(map(len, rows.values()))
    width, height = _NAME + most * _EACH, 0.6 + _EACH * len(rows)
    alt = f"{title}. Rows of {most} small pictures, from top to bottom: {', '.join(rows)}. {note}".strip()
    picture = Picture(width, height, alt)
    words: dict[str, Any] = {"va": "center", "family": FONT, "parse_math": False}
    picture.text(0.1 / width, 1 - 0.17 / height, title, fontsize=10.5, weight="bold", color=INK, **words)
    picture.text(0.1 / width, 0.12 / height, note, fontsize=7.5, color=CAPTION, **words)
    for row, (name, shown) in enumerate(rows.items()):
        low = height - 0.34 - _EACH * (row + 1)
        picture.text(0.1 / width, (low + _EACH / 2) / height, name, fontsize=8.5, color=INK, **words)
        for k, one in enumerate(shown):
            place = ((_NAME + k * _EACH) / width, low / height, 0.94 * _EACH / width, 0.94 * _EACH / height)
            axes = picture.add_axes(place, label=f"{name} {k}")
            axes.imshow(one[0].numpy(), cmap="gray_r", vmin=0, vmax=1)
            axes.set_axis_off()
    return picture
