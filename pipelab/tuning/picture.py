"""What tuning found: throughput and memory against the number of micro-batches, with the memory wall."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from pipelab.quantities import DeviceMemory, format_bytes
from pipelab.tuning.candidates import Candidate, Forecast, synchronous
from pipelab.tuning.result import Tuning
from pipelab.view import words
from pipelab.view.letters import FONT, wrap
from pipelab.view.palette import CAPTION, IDLE_HATCH, INK, OPS
from pipelab.view.picture import Picture, plain_style

__all__ = ["plot_tuning"]

# A schedule has a colour and a marker, recomputation dashes and hollow markers: either tells lines apart.
_LOOKS = {"naive": (CAPTION, "D"), "gpipe": (OPS["R"], "s"), "1f1b": (OPS["B"], "o"), "interleaved": (OPS["I"], "^")}
_OTHERS = "vPX*<>phd8"
_MOST = 6  # schedules in one picture
_WIDTH, _HEIGHT = 9.0, 7.0  # inches
_SMALL: dict[str, Any] = {"fontsize": 8.5, "fontfamily": FONT, "color": CAPTION}


@plain_style()
def plot_tuning(tuning: Tuning) -> Picture:
    """Draw predicted throughput and peak memory over m, one line a family, and what was measured.

    Of many schedules those that were measured are drawn, and the fastest, six in all. Candidates beyond a memory limit
    are crossed out; m* and 4p, and the choice, are marked. Everything is at the fixed batch of ``tuning``.
    """
    every = len({f.candidate.schedule for f in tuning.forecasts})
    tuning = _few(tuning)
    families: dict[str, list[Forecast]] = {}
    for found in sorted(tuning.forecasts, key=lambda f: f.candidate.microbatches):
        families.setdefault(found.candidate.family, []).append(found)
    memory = _Memory.of(tuning)
    updates = any(f.update for f in tuning.forecasts)
    notes = [
        f"Fixed batch of {tuning.batch} sequences, p = {tuning.profile.devices}. Lines: predicted from a cost profile.",
        "Bars: measured, fastest to slowest round." if tuning.measured else "",
        f"Clock: {tuning.clock}{'; a step with its update' if updates else ''}. "
        "Crossed out: over the limit, or failed when run.",
        "4p is a common start; m* = √((p − 1)βB/α) is the best m of GPipe and 1F1B by the fitted line.",
        f"Drawn: the {_MOST} fastest of {every} schedules." if every > _MOST else "",
        "Naive is drawn at m = 1, because its one micro-batch is the whole batch." if "naive" in families else "",
    ]
    note = words.sentences(*notes)
    caption = wrap(note, 7.5, _WIDTH * 72 - 24)
    foot = 0.16 * len(caption) + 0.15
    height = _HEIGHT + foot
    picture = Picture(_WIDTH, height, _alt(tuning, families))
    left, wide = 0.75 / _WIDTH, (_WIDTH - 3.05) / _WIDTH
    top = picture.add_axes((left, (foot + 3.55) / height, wide, 3.05 / height), label="throughput")
    low = picture.add_axes((left, (foot + 0.5) / height, wide, 2.65 / height), label="memory")
    handles = [_family(top, low, name, found, memory, tuning) for name, found in families.items()]
    fastest = _measured(top, low, tuning, memory)
    ceiling = memory.most * 1.12
    if memory.wall is not None:
        far = memory.wall > 1.6 * memory.most
        if not far:
            ceiling = max(memory.most, memory.wall) * 1.12
            low.axhspan(memory.wall, 10 * ceiling, facecolor="none", edgecolor=IDLE_HATCH, hatch="//", lw=0, zorder=0)
            low.axhline(memory.wall, color=INK, linewidth=1.6, zorder=3, gid="wall")
        label = f"{memory.name}{' (far above)' if far else ''}"
        handles.append(Line2D([], [], color=INK, linewidth=1.6, label=label))
    ticks = sorted({f.candidate.microbatches for f in tuning.forecasts})
    shown = [m for k, m in enumerate(ticks) if k == 0 or m >= 1.18 * ticks[k - 1] or m == ticks[-1]]
    for axes in (top, low):
        _dress(axes, ticks, shown)
        _rules(axes, tuning, ticks, named=axes is top)
    top.set_ylim(0, max(fastest, *(f.sequences_per_second for f in tuning.forecasts)) * 1.2)
    low.set_ylim(0, ceiling)
    low.yaxis.set_major_formatter(lambda value, _: f"{value / memory.size:g}")
    top.set_ylabel("sequences per second", **_SMALL)
    low.set_ylabel(memory.axis, **_SMALL)
    low.set_xlabel("m, micro-batches in the batch", **_SMALL)
    _choice(top, tuning, handles)
    legend = picture.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=((_WIDTH - 2.2) / _WIDTH, (foot + 6.7) / height),
        frameon=False,
        handlelength=3.4,
        prop={"family": FONT, "size": 8.5},
    )
    legend.set_gid("legend")
    title = f"Sweet spot: {tuning.best}"
    picture.text(12 / 72 / _WIDTH, 1 - 0.24 / height, title, fontsize=12, fontweight="bold", fontfamily=FONT, color=INK)
    for k, line in enumerate(caption):
        y = (foot - 0.05 - 0.16 * (k + 0.5)) / height
        picture.text(12 / 72 / _WIDTH, y, line, fontsize=7.5, fontfamily=FONT, color=CAPTION, va="center")
    return picture


@dataclass(frozen=True)
class _Memory:
    """What the lower panel shows: bytes of the fullest device; where limits differ, the part of a device's limit."""

    limits: tuple[float, ...] | None
    most: float
    size: float
    axis: str
    wall: float | None
    name: str

    @classmethod
    def of(cls, tuning: Tuning) -> _Memory:
        if len(set(tuning.limits)) > 1:
            parts = [_part(f.memory, tuning.limits) for f in tuning.forecasts]
            return cls(
                tuning.limits, max(parts), 0.01, "peak of the fullest device (% of its limit)", 1.0, "memory limits"
            )
        most = max(f.peak_bytes for f in tuning.forecasts)
        units = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))
        unit, size = next((n, s) for n, s in units if most >= s or s == 1.0)
        wall = tuning.limits[0] if math.isfinite(tuning.limits[0]) else None
        name = "" if wall is None else f"memory limit {format_bytes(wall)}"
        return cls(None, most, size, f"peak of the fullest device ({unit})", wall, name)

    def height(self, held: Sequence[DeviceMemory]) -> float:
        """Where a candidate's memory stands."""
        return max(d.total for d in held) if self.limits is None else _part(held, self.limits)


def _part(held: Sequence[DeviceMemory], limits: Sequence[float]) -> float:
    return max(d.total / limit for d, limit in zip(held, limits, strict=True))


def _few(tuning: Tuning) -> Tuning:
    """With what is drawn alone."""
    order = [*tuning.measured, *(f.candidate for f in (*tuning.fitting, *tuning.forecasts))]
    drawn = list(dict.fromkeys(c.schedule for c in order))[:_MOST]
    return replace(tuning, forecasts=tuple(f for f in tuning.forecasts if f.candidate.schedule in drawn))


def _look(candidate: Candidate) -> tuple[str, str]:
    """Colour and marker of a schedule."""
    name = candidate.schedule
    others = [*(known for known in synchronous() if known not in _LOOKS), name]
    k = others.index(name) % len(_OTHERS)
    return _LOOKS.get(name, ((OPS["W"], INK, OPS["F"])[k % 3], _OTHERS[k]))


def _family(top: Axes, low: Axes, name: str, found: list[Forecast], memory: _Memory, tuning: Tuning) -> Line2D:
    """One line in both panels; returns its entry of the legend."""
    candidate = found[0].candidate
    colour, marker = _look(candidate)
    dashes: Any = (0, (5, 2)) if candidate.recompute else "-"
    face = "white" if candidate.recompute else colour
    size = 9 if candidate.schedule == "naive" else 5.5  # one point, beneath those of gpipe and 1f1b
    look: dict[str, Any] = {
        "color": colour,
        "marker": marker,
        "markerfacecolor": face,
        "markersize": size,
        "linewidth": 1.6,
    }
    x = [f.candidate.microbatches for f in found]
    top.plot(x, [f.sequences_per_second for f in found], linestyle=dashes, **look)
    low.plot(x, [memory.height(f.memory) for f in found], linestyle=dashes, **look)
    failed = {c for c, row in tuning.measured.items() if row.failed is not None}
    over = [f for f in found if f.excess is not None or f.candidate in failed]
    cross: dict[str, Any] = {
        "color": INK,
        "marker": "x",
        "markersize": 8,
        "linestyle": "none",
        "markeredgewidth": 1.4,
        "zorder": 4,
    }
    top.plot([f.candidate.microbatches for f in over], [f.sequences_per_second for f in over], **cross)
    low.plot([f.candidate.microbatches for f in over], [memory.height(f.memory) for f in over], **cross)
    return Line2D([], [], label=name, linestyle=dashes, **look)


def _measured(top: Axes, low: Axes, tuning: Tuning, memory: _Memory) -> float:
    """Bars in the colours of their lines, from the fastest round to the slowest; returns the top of the highest."""
    fastest = 0.0
    for candidate, found in tuning.measured.items():
        if found.failed is not None:
            continue
        update, m = tuning[candidate].update, candidate.microbatches
        ends = [tuning.batch / (seconds + update) for seconds in (max(found.seconds), min(found.seconds))]
        middle = tuning.batch / (found.makespan + update)
        fastest = max(fastest, ends[1])
        top.errorbar(
            [m],
            [middle],
            yerr=[[middle - ends[0]], [ends[1] - middle]],
            fmt="_",
            color=_look(candidate)[0],
            capsize=4,
            markersize=11,
            zorder=5,
        )
        low.plot([m], [memory.height(found.memory)], "_", color=INK, markersize=11, zorder=5)
    return fastest


def _choice(top: Axes, tuning: Tuning, handles: list[Line2D]) -> None:
    best = tuning.best
    y = tuning.batch / tuning.seconds(best)
    ring: dict[str, Any] = {
        "marker": "o",
        "markersize": 15,
        "markerfacecolor": "none",
        "markeredgecolor": INK,
        "linestyle": "none",
    }
    top.plot([best.microbatches], [y], zorder=6, gid="choice", **ring)
    handles.append(Line2D([], [], label="sweet spot", **(ring | {"markersize": 10})))
    if tuning.measured:
        handles.append(Line2D([], [], color=INK, marker="_", linestyle="none", markersize=11, label="measured"))


def _rules(axes: Axes, tuning: Tuning, ticks: list[int], *, named: bool) -> None:
    """m* and 4p, as upright lines."""
    start = "4p" if tuning.start == 4 * tuning.profile.devices else "start"
    for place, name, dashes in ((tuning.best_microbatches, "m*", (0, (2, 2))), (tuning.start, start, (0, (6, 3)))):
        if not ticks[0] <= place <= ticks[-1]:
            continue
        axes.axvline(place, color=CAPTION, linewidth=1, linestyle=dashes, zorder=1, gid=name)
        if named:
            axes.annotate(
                f"{name} = {place:.3g}",
                (place, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(-3, -4) if place > ticks[-1] / 2 else (3, -4),
                textcoords="offset points",
                va="top",
                ha="right" if place > ticks[-1] / 2 else "left",
                **_SMALL,
            )


def _dress(axes: Axes, ticks: list[int], shown: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlim(ticks[0] / 1.15, ticks[-1] * 1.15)
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color=IDLE_HATCH, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, labelfontfamily=FONT, color=CAPTION, labelcolor=CAPTION)


def _alt(tuning: Tuning, families: dict[str, list[Forecast]]) -> str:
    lines = [
        f"Throughput and peak memory against m, at a batch of {tuning.batch}. Sweet spot: {tuning.best}, "
        f"{tuning.batch / tuning.seconds(tuning.best):.1f} sequences per second."
    ]
    for name, found in families.items():
        values = ", ".join(
            f"{f.sequences_per_second:.1f} and {format_bytes(f.peak_bytes)}"
            f"{' (too much)' if f.excess else ''} at {f.candidate.microbatches}"
            for f in found
        )
        lines.append(f"{name}: {values}.")
    return " ".join(lines)
