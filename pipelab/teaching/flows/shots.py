"""Frames of a video side by side, and arrows that show where blocks came from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipelab.errors import ConfigurationError
from pipelab.teaching.flows.video import BLOCK, Pixels, Shifts
from pipelab.view.letters import FONT
from pipelab.view.palette import CAPTION, INK
from pipelab.view.picture import Picture, plain_style

__all__ = ["plot_shots"]

_WIDTH, _GAP, _TITLE, _HEAD, _FOOT = 10.0, 0.12, 0.34, 0.24, 0.26  # inches


@plain_style()
def plot_shots(
    shots: Mapping[str, Pixels], *, title: str, arrows: Mapping[str, Shifts] | None = None, note: str = ""
) -> Picture:
    """Draw each of ``shots`` (name -> brightness, all of one shape) in a row.

    ``arrows`` (name -> dy, dx of each block) go from where a block came from to where it is. ``note`` stands below.
    Raises ConfigurationError for no shots, more than four, or arrows of a shot that is not there.
    """
    if not 1 <= len(shots) <= 4:
        raise ConfigurationError(f"a row has 1 to 4 shots, got {len(shots)}")
    for name in arrows or {}:
        if name not in shots:
            raise ConfigurationError(f"there is no shot '{name}' for its arrows; try {', '.join(shots)}")
    high, wide = next(iter(shots.values())).shape
    each = (_WIDTH - (len(shots) + 1) * _GAP) / len(shots)
    tall = each * high / wide
    height = _TITLE + _HEAD + tall + _FOOT
    alt = f"{title}. {len(shots)} pictures side by side: {', '.join(shots)}. {note}".strip()
    picture = Picture(_WIDTH, height, alt)
    picture.text(_GAP / _WIDTH, 1 - 0.55 * _TITLE / height, title, fontsize=10.5, weight="bold", color=INK, family=FONT)
    picture.text(_GAP / _WIDTH, 0.09 / height, note, fontsize=7.5, color=CAPTION, family=FONT)
    for k, (name, pixels) in enumerate(shots.items()):
        left = _GAP + k * (each + _GAP)
        axes = picture.add_axes((left / _WIDTH, _FOOT / height, each / _WIDTH, tall / height), label=name)
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=(0, wide, high, 0), interpolation="nearest")
        axes.set(xlim=(0, wide), ylim=(high, 0))
        axes.set_axis_off()
        axes.set_title(name, fontsize=8.5, loc="left", pad=3, color=INK, fontfamily=FONT)
        if name in (arrows or {}):
            shifts = (arrows or {})[name].astype(float)
            rows, columns = BLOCK * (np.indices(shifts.shape[:2]) + 0.5)
            dy, dx = shifts[..., 0], shifts[..., 1]
            axes.quiver(
                columns + dx,
                rows + dy,
                -dx,
                -dy,
                color="#E69F00",
                angles="xy",
                scale_units="xy",
                scale=0.5,
                width=0.004,
            )
    return picture
