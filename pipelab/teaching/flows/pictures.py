"""Small pictures of digits: drawn in the fonts that Matplotlib ships, then turned, moved, dimmed and made noisy."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pipelab.view.picture import Picture, plain_style

__all__ = ["SIDE", "digits", "plot_pictures"]

SIDE = 16
"""Pixels of a picture's side."""
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
def plot_pictures(rows: Mapping[str, Tensor], title: str) -> Picture:
    """Rows of pictures below one another, each row with its name: (pictures, 1, 16, 16)."""
    width, height = 7.5, 0.4 + 0.62 * len(rows)
    alt = f"{title}. Rows of small pictures, from top to bottom: {'; '.join(rows)}."
    picture = Picture(width, height, alt)
    picture.text(0.02, 1 - 0.2 / height, title, fontsize=11, fontweight="bold", va="center")
    for row, (name, shown) in enumerate(rows.items()):
        low = 1 - (0.4 + 0.62 * (row + 1)) / height
        picture.text(0.02, low + 0.29 / height, name, fontsize=8.5, va="center")
        for k, one in enumerate(shown):
            axes = picture.add_axes(((2.2 + 0.6 * k) / width, low + 0.02, 0.55 / width, 0.55 / height))
            axes.imshow(one[0].numpy(), cmap="gray_r", vmin=0, vmax=1)
            axes.set_axis_off()
    return picture
