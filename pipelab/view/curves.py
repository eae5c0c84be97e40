"""Measured figures over one number that was varied: lines with markers, such as bytes over micro-batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from pipelab.errors import ConfigurationError
from pipelab.view import words
from pipelab.view.letters import FONT, wrap
from pipelab.view.palette import CAPTION, IDLE_HATCH, INK, OPS
from pipelab.view.picture import Picture, plain_style

__all__ = ["plot_curves"]

# Each differs from the others in colour, marker and dashes, so that no one of the three is needed to tell them apart.
_STYLES = (
    (OPS["R"], "o", "-"),
    (OPS["B"], "s", (0, (6, 2))),
    (OPS["I"], "^", (0, (2, 2))),
    (INK, "D", (0, (7, 2, 1, 2))),
    ("#7A7A7A", "v", (0, (1, 1))),
)
_LABELLED = 20  # up to so many places each have a label
_WIDTH, _HEIGHT, _TOP = 7.5, 4.2, 0.32  # inches; the last: a line of the title


@plain_style()
def plot_curves(
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    *,
    across: str,
    up: str,
    title: str,
    note: str = "",
    log: bool = False,
    marks: Mapping[str, float] | None = None,
) -> Picture:
    """Draw each of ``curves`` (name -> one value per entry of ``x``) as a line from zero up.

    ``across`` and ``up`` name the axes, with units. ``note`` stands below: where the values are from, what is held
    fixed. ``log`` makes the axis of ``x`` logarithmic: each doubling is as wide as the next. ``marks`` (name -> place)
    are upright lines; those outside of the axis are left out. Raises ConfigurationError for no curves, more than five,
    one of another length than ``x``, or a place that a logarithmic axis does not have.

    >>> plot_curves([1, 2, 4], {"GPipe": [64, 64, 64]}, across="m", up="sequences held", title="Batch fixed")
    """
    if not 1 <= len(curves) <= len(_STYLES):
        raise ConfigurationError(f"a picture has 1 to {len(_STYLES)} curves, got {len(curves)}")
    for name, values in curves.items():
        if len(values) != len(x):
            raise ConfigurationError(f"curve '{name}' has {len(values)} values for {len(x)} places on the axis")
    if log and min(x) <= 0:
        raise ConfigurationError(f"a logarithmic axis has only places above 0, got {min(x):g}")
    listed = [
        f"{name}: " + ", ".join(f"{value:.4g} at {place:g}" for place, value in zip(x, values, strict=True))
        for name, values in curves.items()
    ]
    shown = {name: place for name, place in (marks or {}).items() if min(x) <= place <= max(x)}
    listed += [f"marked, {name}, at {place:.4g}" for name, place in shown.items()]
    alt = words.sentences(
        f"{title}.", note, f"{up} over {across}{' (logarithmic)' if log else ''}.", *(f"{line}." for line in listed)
    )
    inner = _WIDTH * 72 - 24
    caption = wrap(note, 7.5, inner) if note else []
    foot = 0.16 * len(caption) + 0.1
    height = _HEIGHT + foot
    picture = Picture(_WIDTH, height, alt)
    axes = picture.add_axes(
        (0.75 / _WIDTH, (foot + 0.5) / height, (_WIDTH - 1.0) / _WIDTH, (_HEIGHT - _TOP - 0.6) / height), label="curves"
    )
    for (name, values), (colour, marker, dashes) in zip(curves.items(), _STYLES, strict=False):
        axes.plot(x, values, color=colour, marker=marker, linestyle=dashes, markersize=6, linewidth=1.8, label=name)
    axes.set_ylim(0, max(map(max, curves.values())) * max(1.3, 1.1 + 0.07 * len(curves)) or 1.0)  # room for the legend
    if log:
        axes.set_xscale("log", base=2)
        axes.set_xlim(min(x) / 1.1, max(x) * 1.1)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: f"{place:g}"))
    else:
        axes.set_xlim(0, max(x) * 1.04)
    if log or len(x) <= _LABELLED:
        axes.xaxis.set_major_locator(FixedLocator(list(x)))
    for name, place in shown.items():
        _mark(axes, name, place)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color=IDLE_HATCH, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(across, fontsize=9, fontfamily=FONT, color=CAPTION)
    axes.set_ylabel(up, fontsize=9, fontfamily=FONT, color=CAPTION)
    axes.tick_params(labelsize=8, labelfontfamily=FONT, color=CAPTION, labelcolor=CAPTION)
    axes.legend(
        loc="upper left",
        ncols=1,
        facecolor="white",
        edgecolor="none",
        framealpha=1,
        handlelength=3.6,
        borderaxespad=0.2,
        prop={"family": FONT, "size": 8.5},
    )
    picture.text(
        12 / 72 / _WIDTH,
        1 - 0.2 / height,
        title,
        fontsize=11,
        fontweight="bold",
        fontfamily=FONT,
        color=INK,
        va="center",
        parse_math=False,
        gid="title",
    )
    for k, line in enumerate(caption):
        picture.text(
            12 / 72 / _WIDTH,
            (foot - 0.16 * (k + 0.5)) / height,
            line,
            fontsize=7.5,
            fontfamily=FONT,
            color=CAPTION,
            va="center",
            parse_math=False,
            gid="caption",
        )
    return picture


def _mark(axes: Axes, name: str, place: float) -> None:
    """An upright line, its name above the frame, where no curve is."""
    axes.axvline(place, color=CAPTION, linewidth=1.2, linestyle=(0, (1, 2)), zorder=1.5, label="_mark")
    axes.annotate(
        name,
        (place, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 1),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=8.5,
        fontfamily=FONT,
        color=INK,
    )
