"""What a monitor has seen, step by step: who was busy, why the others were not, how long steps took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any, Protocol

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipelab.errors import ConfigurationError
from pipelab.quantities import format_time
from pipelab.tuning.monitor.summary import WORDS, MonitorSummary
from pipelab.view import words
from pipelab.view.letters import FONT, wrap
from pipelab.view.palette import CAPTION, IDLE_HATCH, INK, MEMORY_LINE, OPS
from pipelab.view.picture import Picture, plain_style

__all__ = ["plot_monitor", "plot_recovery"]

_WIDTH, _HEIGHT, _PANEL = 9.0, 6.9, 1.6  # inches
_SMALL: dict[str, Any] = {"fontsize": 8.5, "fontfamily": FONT, "color": CAPTION}
_LEGEND: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.05), "frameon": False}
_COLOURS = (OPS["R"], OPS["B"], OPS["I"], INK, MEMORY_LINE, OPS["F"])
_MARKERS, _DASHES = "os^Dvp", ("-", "--")
_LOOKS = ((OPS["F"], ""), (OPS["B"], "//"), (OPS["I"], ".."), (OPS["W"], "\\\\"), (IDLE_HATCH, "xx"))


class _Watched(Protocol):
    def history(self) -> tuple[MonitorSummary, ...]: ...


@plain_style()
def plot_monitor(monitor: _Watched) -> Picture:
    """Draw the last steps of a Monitor: each device's utilisation, the bubble by cause, and the time of ``step()``.

    Raises ConfigurationError before the first step, and where costs are not measured.
    """
    steps = [one for one in monitor.history() if one.causes is not None]
    if not steps:
        raise ConfigurationError("no step with measured costs was observed: call step(), without measure_costs=False")
    last = steps[-1]
    title = f"{last.schedule}, steps {steps[0].step} to {last.step}, {last.clock} clock"
    note = "A part below 0 takes from the bubble what the others add." if _below(steps) else ""
    alt = words.sentences(f"{title}.", f"Of the last step: {_said(last)}.", note)
    picture = Picture(_WIDTH, _HEIGHT, alt)
    names = ("utilisation", "bubble", "seconds")
    top, middle, low = (_panel(picture, k, name) for k, name in enumerate(names))
    across = [one.step for one in steps]
    for r, values in enumerate(zip(*(one.utilisation for one in steps), strict=True)):
        look: dict[str, Any] = {
            "color": _COLOURS[r % len(_COLOURS)],
            "marker": _MARKERS[r // len(_COLOURS) % len(_MARKERS)],
        }
        top.plot(across, values, markersize=3, linewidth=1.2, label=f"device {r}", **look)
    over, under = [0.0] * len(steps), [0.0] * len(steps)
    parts = zip(*(astuple(one.causes) for one in steps if one.causes is not None), strict=True)
    for name, values, (colour, hatch) in zip(WORDS.values(), parts, _LOOKS, strict=True):
        if any(abs(value) >= 0.0005 for value in values):
            bottom = [up if value > 0 else down for value, up, down in zip(values, over, under, strict=True)]
            middle.bar(across, values, 1.0, bottom, color=colour, hatch=hatch, edgecolor="white", lw=0, label=name)
            over = [up + max(value, 0.0) for value, up in zip(values, over, strict=True)]
            under = [down + min(value, 0.0) for value, down in zip(values, under, strict=True)]
    middle.plot(across, [one.bubble or 0.0 for one in steps], color=INK, linewidth=1.2, label="bubble")
    low.plot(across, [one.seconds for one in steps], color=INK, linewidth=1.2, marker="o", markersize=3)
    top.set_ylim(0, 1.02)
    low.set_ylim(0, max(one.seconds for one in steps) * 1.1)
    for axes in (top, middle, low):
        axes.set_xlim(across[0] - 0.5, across[-1] + 0.5)
    for axes in (top, middle):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend(**_LEGEND, prop={"family": FONT, "size": 8.5}, ncols=1 + len(last.utilisation) // 10)
    top.set_ylabel("device is busy", **_SMALL)
    middle.set_ylabel("bubble by cause", **_SMALL)
    low.set_ylabel("seconds a step", **_SMALL)
    low.set_xlabel("step", **_SMALL)
    _write(picture, 0.24, title, fontsize=12, fontweight="bold", color=INK)
    for line in wrap(note, 7.5, _WIDTH * 72 - 24) if note else []:
        _write(picture, _HEIGHT - 0.12, line, fontsize=7.5, color=CAPTION)
    return picture


@plain_style()
def plot_recovery(
    seconds: Sequence[float],
    losses: Sequence[float],
    unsplit: Sequence[float],
    marks: Mapping[str, int],
    *,
    title: str,
) -> Picture:
    """Draw what each step took and its loss, over the unsplit model's; ``marks``: what happened before which step."""
    marks = {name: step for name, step in marks.items() if step < len(seconds)}  # not what comes after the last one
    happened = ", ".join(f"{name} from step {step} on" for name, step in sorted(marks.items(), key=lambda one: one[1]))
    taken = [f"{format_time(seconds[step], 's')} at step {step}" for step in sorted({0, *marks.values()})]
    worst = max(abs(a - b) for a, b in zip(losses, unsplit, strict=True))
    note = f"Step time by the device clock. The two losses differ by at most {worst:.1e}."
    picture = Picture(
        _WIDTH, 5.0, words.sentences(f"{title}.", f"{happened}.", f"A step takes {', '.join(taken)}.", note)
    )
    top, low = _panel(picture, 0, "seconds", 0.75), _panel(picture, 1, "loss", 0.75)
    across, up = range(len(seconds)), max(seconds) * 1.1
    top.plot(across, seconds, color=INK, linewidth=1.2, marker="o", markersize=3)
    low.plot(across, unsplit, color=OPS["F"], linewidth=5, label="unsplit model")
    low.plot(across, losses, color=INK, linewidth=1.2, label="pipeline")
    low.legend(**_LEGEND, prop={"family": FONT, "size": 8.5})
    for k, (name, step) in enumerate(sorted(marks.items(), key=lambda one: one[1])):
        for axes in (top, low):
            axes.axvline(step - 0.5, color=CAPTION, linewidth=1.2, linestyle=(0, (1, 2)), zorder=1.5)
        top.text(step - 0.4, up * (1.08 if k % 2 else 1.01), name, va="bottom", **_SMALL | {"color": INK})
    top.set_ylim(0, up)
    for axes in (top, low):
        axes.set_xlim(-0.5, len(seconds) - 0.5)
    top.set_ylabel("seconds a step", **_SMALL)
    low.set_ylabel("loss", **_SMALL)
    low.set_xlabel("step", **_SMALL)
    _write(picture, 0.24, title, fontsize=12, fontweight="bold", color=INK)
    _write(picture, picture.get_figheight() - 0.12, note, fontsize=7.5, color=CAPTION)
    return picture


def _panel(picture: Picture, k: int, label: str, top: float = 0.45) -> Axes:
    height = picture.get_figheight()
    bottom = height - top - (k + 1) * _PANEL - k * 0.4
    axes = picture.add_axes((0.8 / _WIDTH, bottom / height, (_WIDTH - 3.0) / _WIDTH, _PANEL / height), label=label)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color=IDLE_HATCH, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, labelfontfamily=FONT, color=CAPTION, labelcolor=CAPTION)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return axes


def _write(picture: Picture, down: float, text: str, **look: Any) -> None:
    picture.text(
        12 / 72 / _WIDTH,
        1 - down / picture.get_figheight(),
        text,
        fontfamily=FONT,
        va="center",
        parse_math=False,
        **look,
    )


def _below(steps: list[MonitorSummary]) -> bool:
    return any(part <= -0.0005 for one in steps if one.causes is not None for part in astuple(one.causes))


def _said(last: MonitorSummary) -> str:
    busy = ", ".join(f"device {r} is busy {part:.0%}" for r, part in enumerate(last.utilisation))
    return f"{busy}; {last.bubble_words()}; {format_time(last.seconds, 's')} a step"
