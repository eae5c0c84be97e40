"""A picture of four ways to share a model and a batch among devices: who holds what, and what each one sends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from pipelab.errors import ConfigurationError, whole_number
from pipelab.view import palette
from pipelab.view.letters import FONT
from pipelab.view.picture import Picture, plain_style

__all__ = ["WAYS", "Box", "Way", "plot_parallelism"]

Box = tuple[float, float, float, float]
"""Left, right, top, bottom, each from 0 to 1: a part of the model (layers downwards) or of the batch."""


@dataclass(frozen=True)
class Way:
    """One way of sharing. ``words`` say what each device has; ``fetches``: the rest of a layer is fetched for use."""

    title: str
    words: str
    cut: str
    """What of the model a device holds: "whole", "columns" (a part of each layer) or "rows" (a run of layers)."""
    splits_batch: bool
    fetches: bool = False

    def held(self, r: int, p: int) -> Box:
        """What device r keeps of the model."""
        if self.cut == "columns":
            return (r / p, (r + 1) / p, 0.0, 1.0)
        return (0.0, 1.0, r / p, (r + 1) / p) if self.cut == "rows" else (0.0, 1.0, 0.0, 1.0)

    def batch(self, r: int, p: int) -> Box:
        """What it computes of the batch."""
        return (0.0, 1.0, r / p, (r + 1) / p) if self.splits_batch else (0.0, 1.0, 0.0, 1.0)


WAYS: Mapping[str, Way] = {
    "data": Way("data parallel", "the whole model, a part of the batch", "whole", splits_batch=True),
    "sharded": Way(
        "sharded data parallel",
        "a part of each layer (the rest is fetched), a part of the batch",
        "columns",
        splits_batch=True,
        fetches=True,
    ),
    "tensor": Way("tensor parallel", "a part of each layer, the whole batch", "columns", splits_batch=False),
    "pipeline": Way("pipeline parallel", "a run of layers, the whole batch", "rows", splits_batch=False),
}

_HELD, _BATCH, _LINE = palette.MEMORY_LINE, "#D9A441", "#8A8A8A"
_WIDTH, _MARGIN = 756.0, 10.0  # points
_TITLE, _HIGH, _NAMES, _SAYS, _FOOT = 20.0, 74.0, 16.0, 18.0, 26.0


@plain_style()
def plot_parallelism(sent: Mapping[str, float], *, devices: int = 4, note: str = "") -> Picture:
    """Draw data, sharded data, tensor and pipeline parallelism side by side, each on ``devices`` devices.

    ``sent`` gives the bytes that a device sends in a step, for each name of ``WAYS``; they stand under the panels.
    ``note`` stands below: where the figures are from. Raises ConfigurationError where a way has no figure.
    """
    whole_number("devices", "", devices)
    if set(sent) != set(WAYS):
        raise ConfigurationError(
            f"plot_parallelism needs a figure for each of {', '.join(WAYS)}; got {', '.join(sent)}"
        )
    alt = " ".join(
        [
            f"Four ways to share a model and a batch among {devices} devices.",
            *(f"{way.title.capitalize()}: each device has {way.words}; {_says(sent[n])}." for n, way in WAYS.items()),
            note,
        ]
    ).strip()
    height = _TITLE + _HIGH + _NAMES + _SAYS + _FOOT + (14 if note else 0)
    picture = Picture(_WIDTH / 72, height / 72, alt)
    sheet = picture.add_axes((0, 0, 1, 1), label="ways")
    sheet.set(xlim=(0, _WIDTH), ylim=(height, 0))
    sheet.set_axis_off()
    each = (_WIDTH - 2 * _MARGIN) / len(WAYS)
    for k, (name, way) in enumerate(WAYS.items()):
        _panel(sheet, way, devices, _MARGIN + k * each, each - 22, _says(sent[name]))
    _legend(sheet, height - _FOOT / 2 - (14 if note else 0))
    if note:
        _text(sheet, _MARGIN, height - 10, note, 7.5, colour=palette.CAPTION)
    return picture


def _says(found: float) -> str:
    return f"a device sends {found / 1e6:.1f} MB a step"


def _panel(sheet: Axes, way: Way, p: int, left: float, wide: float, says: str) -> None:
    _text(sheet, left, _TITLE / 2, way.title, 9.5, weight="bold")
    each = wide / p
    for r in range(p):
        x = left + r * each
        for box, colour, hatch, label in _parts(way, r, p, x, each):
            sheet.add_patch(
                Rectangle(
                    (box[0], box[2]),
                    box[1] - box[0],
                    box[3] - box[2],
                    facecolor=colour,
                    edgecolor=_LINE,
                    linewidth=0.6,
                    hatch=hatch,
                    label=label,
                )
            )
        _text(sheet, x + 0.43 * each, _TITLE + _HIGH + _NAMES / 2, f"device {r}", 6.5, align="center")
    _text(sheet, left, _TITLE + _HIGH + _NAMES + _SAYS / 2, says, 8.5)


def _parts(way: Way, r: int, p: int, x: float, each: float) -> Iterator[tuple[Box, str, str | None, str]]:
    """The boxes of one device on the sheet, with colour, hatch and what they are."""
    model = (x, x + 0.62 * each, _TITLE, _TITLE + _HIGH)
    batch = (x + 0.68 * each, x + 0.86 * each, _TITLE, _TITLE + _HIGH)
    yield model, "white", "////" if way.fetches else None, "fetched" if way.fetches else "model"
    yield _within(model, way.held(r, p)), _HELD, None, "held"
    yield batch, "white", None, "all of the batch"
    yield _within(batch, way.batch(r, p)), _BATCH, None, "batch"


def _within(outer: Box, part: Box) -> Box:
    left, right, top, bottom = outer
    wide, high = right - left, bottom - top
    return (left + part[0] * wide, left + part[1] * wide, top + part[2] * high, top + part[3] * high)


def _legend(sheet: Axes, y: float) -> None:
    entries: list[tuple[str, str | None, str]] = [
        (_HELD, None, "part of the model that the device keeps (layer 0 at the top)"),
        ("white", "////", "fetched for each layer's forward and backward"),
        (_BATCH, None, "part of the batch that it computes"),
    ]
    x = _MARGIN
    for colour, hatch, words in entries:
        sheet.add_patch(
            Rectangle((x, y - 5), 14, 10, facecolor=colour, edgecolor=_LINE, linewidth=0.6, hatch=hatch, label="legend")
        )
        _text(sheet, x + 19, y, words, 8)
        x += 45 + 4.3 * len(words)


def _text(sheet: Axes, x: float, y: float, words: str, size: float, align: str = "left", **style: Any) -> None:
    colour = style.pop("colour", palette.INK)
    sheet.text(x, y, words, fontsize=size, ha=align, va="center", color=colour, family=FONT, **style)
