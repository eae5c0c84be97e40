"""The paper that a picture is drawn on: title, one time axis, legend and caption, all measured in points.

::

    title                         sheet: x and y in points from the upper left corner
    headline figures              axes:  x in shown time, y in points from the top of the rows
    device 0 |
    device 1 |   rows
             +----------- time
    legend
    caption
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pipelab.errors import ConfigurationError
from pipelab.view.legend import Entry, flow
from pipelab.view.letters import FONT, wrap
from pipelab.view.palette import CAPTION, INK
from pipelab.view.picture import Picture

__all__ = ["EDGE", "Page", "Words", "inner_width"]

WIDTH = 10.5  # inches: what a notebook shows on a laptop
NARROWEST, WIDEST = 5.0, 100.0
EDGE = 12.0  # points of white around everything
TITLE, HEADLINE, SMALL = 12.0, 9.5, 7.5  # sizes of text
LINE = 1.35
AXIS = 30.0  # height of tick labels and axis label


@dataclass(frozen=True)
class Words:
    """All text around the rows. An empty ``title`` or ``headline`` takes no room."""

    title: str
    headline: str
    caption: str
    alt: str


def inner_width(width: float | None) -> float:
    """Points between the edges of a page that is ``width`` inches wide.

    Raises ConfigurationError for a width that has no room for a picture.
    """
    width = WIDTH if width is None else width
    if not NARROWEST <= width <= WIDEST:
        raise ConfigurationError(f"width must be {NARROWEST:g} to {WIDEST:g} inches, got {width!r}; try {WIDTH:g}")
    return width * 72 - 2 * EDGE


class Page:
    """Lays a picture out around rows that are ``body`` points high. Time runs from 0 to ``until`` in ``time_unit``.

    ``left`` and ``right`` are the points needed beside the rows; ``axis`` is the axis's label (default: the time).
    Raises ConfigurationError for a width in inches that has no room for a picture.
    """

    def __init__(
        self,
        words: Words,
        legend: Sequence[Sequence[Entry]],
        *,
        body: float,
        left: float,
        right: float,
        until: float,
        time_unit: str,
        width: float | None = None,
        axis: str | None = None,
    ) -> None:
        inner = inner_width(width)
        self.width = inner + 2 * EDGE
        title = wrap(words.title, TITLE, inner, "bold") if words.title else []
        headline = wrap(words.headline, HEADLINE, inner) if words.headline else []
        caption = wrap(words.caption, SMALL, inner) if words.caption else []
        placed, legend_height = flow(legend, inner)

        head = LINE * (TITLE * len(title) + HEADLINE * len(headline))
        self.top = EDGE + head + (8 if head else 0)
        below = self.top + body + AXIS
        foot = below + 5 + legend_height + 6
        self.height = foot + LINE * SMALL * len(caption) + EDGE

        self.picture = Picture(self.width / 72, self.height / 72, words.alt)
        self.left = EDGE + left
        room = self.width - self.left - EDGE - right
        self.body = body
        self.points_per_time = room / until
        right, low = self.left + room, self.top + body
        edges = (self.left / self.width, self.top / self.height, right / self.width, low / self.height)
        self.picture.rows = edges
        self.sheet = self._sheet()
        self.axes = self._time_axes(room, until, time_unit, axis or f"time ({time_unit})")

        y = EDGE
        for lines, size, weight, colour in ((title, TITLE, "bold", INK), (headline, HEADLINE, "normal", CAPTION)):
            for line in lines:
                self.write(EDGE, y + LINE * size / 2, line, size, weight=weight, colour=colour)
                y += LINE * size
        for swatch in placed:
            swatch.draw(self.sheet, EDGE, below + 5)
        for k, line in enumerate(caption):
            self.write(EDGE, foot + LINE * SMALL * (k + 0.5), line, SMALL, colour=CAPTION)

    def _sheet(self) -> Axes:
        sheet = self.picture.add_axes((0, 0, 1, 1), label="sheet")
        sheet.set(xlim=(0, self.width), ylim=(self.height, 0))
        sheet.axis("off")
        return sheet

    def _time_axes(self, room: float, until: float, time_unit: str, label: str) -> Axes:
        bottom = self.height - self.top - self.body
        box = (self.left / self.width, bottom / self.height, room / self.width, self.body / self.height)
        axes = self.picture.add_axes(box, label="time")
        axes.set(xlim=(0, until), ylim=(self.body, 0), facecolor="none")
        for side in ("left", "top", "right"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set(color=CAPTION, linewidth=0.8)
        axes.set_yticks([])
        whole = time_unit not in ("s", "ms", "µs")
        most = max(2, int(room / 50))
        axes.xaxis.set_major_locator(MaxNLocator(most, integer=whole and until >= 3, steps=[1, 2, 2.5, 5, 10]))
        axes.tick_params(
            axis="x", labelsize=8, length=3, pad=2, color=CAPTION, labelcolor=CAPTION, labelfontfamily=FONT
        )
        axes.set_xlabel(label, fontsize=8.5, labelpad=2, color=CAPTION, fontfamily=FONT)
        return axes

    def write(
        self,
        x: float,
        y: float,
        text: str,
        size: float,
        *,
        align: str = "left",
        weight: str = "normal",
        colour: str = INK,
        gid: str | None = None,
    ) -> None:
        """Text on the sheet, its capitals centred on ``y``."""
        _write(self.sheet, x, y, text, size, align, weight, colour, gid)

    def mark(self, x: float, top: float, bottom: float, *, dashed: bool = False) -> None:
        """A line at ``x`` of the time axis, from ``top`` to ``bottom`` in points below the top of the rows."""
        line = Line2D([x, x], [top, bottom], color=INK, linewidth=1.6, zorder=4, clip_on=False, gid="mark")
        line.set(solid_capstyle="butt")
        if dashed:
            line.set(linewidth=1.2, linestyle=(0, (3, 2)))
        self.axes.add_line(line)

    def label(self, x: float, y: float, text: str, size: float, colour: str, gid: str, align: str = "center") -> None:
        """Text among the rows: ``x`` in shown time, ``y`` in points from their top."""
        _write(self.axes, x, y, text, size, align, "normal", colour, gid)


def _write(
    axes: Axes, x: float, y: float, text: str, size: float, align: str, weight: str, colour: str, gid: str | None
) -> None:
    """By its baseline: centring by the box of the text would let it jump with its descenders."""
    axes.text(
        x,
        y + 0.365 * size,  # half the height of a capital
        text,
        fontsize=size,
        fontfamily=FONT,
        fontweight=weight,
        color=colour,
        ha=align,
        va="baseline",
        parse_math=False,
        gid=gid,
        zorder=5,
    )
