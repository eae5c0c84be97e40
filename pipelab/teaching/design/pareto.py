"""Time against memory: a point for each schedule, and the line of those that no other beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from pipelab.teaching.design.standing import Standing
from pipelab.view import words
from pipelab.view.letters import FONT, wrap
from pipelab.view.palette import CAPTION, IDLE_HATCH, INK, OPS
from pipelab.view.picture import Picture, plain_style

__all__ = ["plot_standings"]

_WIDTH, _HEIGHT = 8.0, 5.2  # inches
_LEFT, _RIGHT, _TOP, _FOOT = 0.8, 1.5, 0.45, 0.95
_LINE = 0.17  # inches between two labels
TITLE = "Time against memory"
NOTE = (
    "Predicted on hidden settings. Filled: yours. Hollow: the catalogue. "
    "The line joins those that no other beats in both time and memory. Dashed: the bound on time, "
    "with each stage on one device."
)


@plain_style()
def plot_standings(standings: Sequence[Standing], bound: float) -> Picture:
    """Draw each of ``standings``: what its fullest device holds, and its time as a percentage of 1F1B's."""
    best = sorted((one for one in standings if not any(map(one.beaten_by, standings))), key=lambda one: one.held)
    each = [f"{one.name}{' (yours)' if one.own else ''} {one.held:g} and {100 * one.time:.1f} %" for one in standings]
    alt = words.sentences(f"{TITLE}.", NOTE, f"Micro-batches held, and time: {'; '.join(each)}.")
    picture = Picture(_WIDTH, _HEIGHT, alt)
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _FOOT
    axes = picture.add_axes((_LEFT / _WIDTH, _FOOT / _HEIGHT, wide / _WIDTH, high / _HEIGHT), label="standings")
    times = [100 * one.time for one in standings]
    low, top = 100 * bound - 4, max(times) + 4
    axes.set(xlim=(0, max(one.held for one in standings) + 0.5), ylim=(low, top))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=IDLE_HATCH, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.axhline(100 * bound, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), gid="bound")
    held, time = [one.held for one in best], [100 * one.time for one in best]
    axes.plot(held, time, color=CAPTION, linewidth=1.2, drawstyle="steps-post", gid="best")
    for one in standings:
        mark, face = ("D", OPS["B"]) if one.own else ("o", "white")
        axes.plot(one.held, 100 * one.time, mark, markersize=7, mfc=face, mec=INK, zorder=4 + one.own)
    for one, y in _placed(standings, (top - low) * _LINE / high):
        axes.annotate(
            one.name,
            (one.held, 100 * one.time),
            (one.held + 0.14, y),
            fontsize=8,
            fontfamily=FONT,
            fontweight="bold" if one.own else "normal",
            color=INK,
            va="center",
            arrowprops={"arrowstyle": "-", "color": CAPTION, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3},
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"},
            gid="name",
            zorder=3,
        )
    look: dict[str, Any] = {"fontsize": 9, "fontfamily": FONT, "color": CAPTION}
    axes.set_xlabel("micro-batches that the fullest device holds", **look)
    axes.set_ylabel("time, % of 1F1B", **look)
    axes.tick_params(labelsize=8, labelfontfamily=FONT, color=CAPTION, labelcolor=CAPTION)
    where: dict[str, Any] = {"fontfamily": FONT, "va": "center"}
    picture.text(12 / 72 / _WIDTH, 1 - 0.22 / _HEIGHT, TITLE, fontsize=11, fontweight="bold", color=INK, **where)
    for k, line in enumerate(wrap(NOTE, 7.5, _WIDTH * 72 - 24)):
        y = (0.4 - 0.16 * k) / _HEIGHT
        picture.text(12 / 72 / _WIDTH, y, line, fontsize=7.5, color=CAPTION, **where)
    return picture


def _placed(standings: Sequence[Standing], line: float) -> list[tuple[Standing, float]]:
    """Each with the height of its label, in per cent: no two of about the same memory closer than a ``line``."""
    found: list[tuple[Standing, float]] = []
    for one in sorted(standings, key=lambda one: one.time):
        taken = [y for other, y in found if abs(other.held - one.held) < 1.2]
        found.append((one, max([100 * one.time, *(y + line for y in taken if y + line > 100 * one.time)])))
    return found
