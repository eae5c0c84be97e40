"""``explore``: change a schedule's numbers and see the effect."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipelab.errors import ConfigurationError
from pipelab.teaching.explorer import beside
from pipelab.teaching.explorer.code import CURVE, axis_of, line
from pipelab.teaching.explorer.curves import AGAINST, Curves
from pipelab.teaching.explorer.figures import FIGURES, Figure, figures
from pipelab.teaching.explorer.measure import PIECES, Measured, measure, require_runnable
from pipelab.teaching.explorer.nearest import timelines_of
from pipelab.teaching.explorer.settings import (
    BATCH,
    CONTROLS,
    Control,
    Settings,
    choices,
    control,
    normalised,
    require_names,
)
from pipelab.teaching.running.running_widget import RunningWidget
from pipelab.timeline import Timeline
from pipelab.view import words
from pipelab.view.picture import Picture
from pipelab.view.prediction import plot_prediction
from pipelab.view.rows import extent
from pipelab.view.schedules import plot_schedules
from pipelab.view.timeline import plot_timeline
from pipelab.view.widgets.animation import Animation
from pipelab.view.widgets.mathml import mathml
from pipelab.view.widgets.saving import MOVING, unknown, unused
from pipelab.view.widgets.scene import detail, scene

__all__ = ["Explorer", "explore"]

_CHUNK = 0.03  # seconds of curve between two answers


class Explorer(RunningWidget):
    """What :func:`explore` returns. ``settings`` is its state, and ``timelines`` are those that it shows.

    ``set(m=8)`` changes a setting from Python. ``run()`` is the button *Run it*, and ``measured`` is its result.
    """

    def __init__(self, settings: Settings, free: Iterable[str], *, full: bool, figure: str, against: str) -> None:
        self.settings, self._free, self._full = settings, tuple(free), full
        self._possible = settings  # the last ones of which there is a picture
        self._figure, self._against = figure, against
        self._curves = Curves()
        self._said = ""
        self._edition = 0
        self.measured: Measured | None = None
        self.timelines, self.problem = timelines_of(settings)
        if not self.timelines:
            assert self.problem is not None
            offers = " or ".join(offer.label for offer in self.problem.offers)
            raise ConfigurationError(f"{self.problem.sentence} Nearest that works: {offers or 'none'}")
        super().__init__("explorer", self._view())

    def __repr__(self) -> str:
        return f"Explorer({self.settings})"

    # ---- from Python -----------------------------------------------------------------------------------------------

    def set(self, **values: Any) -> Explorer:
        """Change settings, by name or symbol. A value out of range becomes the nearest one in range."""
        self._turn(values)
        return self

    @property
    def timeline(self) -> Timeline:
        """The schedule's predicted timeline."""
        return self.timelines[0]

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The figures of the schedule, formula beside simulation."""
        return figures(self._shown, self.timeline)

    @property
    def code(self) -> str:
        """The line of Python that opens an explorer with the settings that are shown."""
        return line(self._shown, None if self._full else self._free, self._figure, self._against)

    def run(self, *, wait: bool = True) -> Measured | None:
        """Run the shown schedule on the 48-layer model, as *Run it* does. ``wait``: until the run has ended."""
        self._start()
        if wait:
            self._wait()
        return self.measured

    def save(self, kind: str = "picture") -> Path:
        """Write what is shown beside the notebook.

        ``kind`` is "picture" (PNG), "svg", "gif" (it moves), "csv" (the table) or "trace" (opens in Perfetto).

        No file is overwritten. Returns the path of the file.
        """
        timeline = self.timeline if self.measured is None else self.measured.measured
        s = self._shown
        stem = f"{s.schedule}-p{s.devices}-m{s.microbatches}" + (f"-v{s.v}" if s.v > 1 else "")
        if kind in MOVING:
            shown = self.animation() if kind == "gif" else self.picture()
            return shown.save(unused(f"{stem}{MOVING[kind]}"))
        if kind not in ("csv", "trace"):
            raise unknown(kind, (*MOVING, "csv", "trace"))
        path = unused(f"{stem}.csv" if kind == "csv" else f"{stem}-trace.json")
        path.write_text(timeline.schedule.to_csv() if kind == "csv" else timeline.to_chrome_trace(), encoding="utf-8")
        return path

    def picture(self) -> Picture:
        """The present state as a static picture."""
        if self.measured is not None:
            return plot_prediction(self.measured.predicted, self.measured.measured)
        if len(self.timelines) > 1:
            return plot_schedules(self.timelines, memory=True)
        return plot_timeline(self.timeline, phases=self._shown.has_steady_phase)

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None, **rest: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget, and for pages on which none runs: the picture, and below it figures, formulas and the line."""
        data, metadata = super()._repr_mimebundle_(include, exclude, **rest)
        if "text/html" in data:
            titles, sizes = [_title(one) for one in self._both()], (self._shown.sizes, self._preset())
            data["text/html"] += beside.static(titles, sizes, self._found(), self._notes(), self.code)
        return data, metadata

    def animation(self) -> Animation:
        """What it shows now, as an animated picture."""
        if self.measured is not None:
            shown = self._measured(self.measured)
            return Animation(self.picture(), shown["scenes"], shown["names"])
        return Animation(self.picture(), [scene(timeline) for timeline in self.timelines])

    # ---- from the browser ------------------------------------------------------------------------------------------

    def _commands(self) -> dict[str, Callable[[dict[str, Any]], str | None]]:
        return super()._commands() | {
            "set": self._ask_set,
            "detail": self._ask_detail,
            "curve": self._ask_curve,
        }

    def _ask_set(self, message: dict[str, Any]) -> None:
        given = message.get("values")
        values = given if isinstance(given, dict) else {}
        allowed = {*self._free, *(("compare",) if self._full else ())}
        self._turn({name: value for name, value in values.items() if name in allowed})

    def _ask_detail(self, message: dict[str, Any]) -> None:
        """What is needed once someone points at the picture: sent when the controls rest, so that turning is quick."""
        self.send({"detail": [detail(timeline) for timeline in self.timelines], "edition": self._edition})

    def _ask_curve(self, message: dict[str, Any]) -> None:
        """The next points of the curve; or another curve."""
        figure, against = str(message.get("figure", self._figure)), str(message.get("against", self._against))
        self._curves.curve(self._shown, figure, against)  # raises for what there is not
        self._figure, self._against = figure, against
        for settings in self._both():
            curve = self._curves.curve(settings, figure, against)
            self._curves.work(settings, curve, _CHUNK)
        self.send({"curve": self._curve_view(), "code": self.code})

    # ---- what happens ----------------------------------------------------------------------------------------------

    @property
    def _shown(self) -> Settings:
        """The settings of the timelines that are shown: the last possible ones."""
        return self._possible

    def _both(self) -> list[Settings]:
        other = self._shown.other()
        return [self._shown] if other is None else [self._shown, other]

    def _turn(self, values: dict[str, Any]) -> None:
        with self._lock:  # a run that ends meanwhile waits, and is not shown any more
            settings, self._said = normalised(self.settings, values)
            if settings != self.settings:
                self.measured = None
                self._leave_run("The settings changed, so the run was stopped.")
            self.settings = settings
            found, self.problem = timelines_of(settings)
            if found:
                self.timelines, self._possible = found, settings
            self.show(self._view())

    def _start(self) -> None:
        with self._lock:
            if self.problem is not None and not self.problem.possible:
                raise ConfigurationError("these settings cannot be run: " + self.problem.sentence)
            settings = self._shown
            require_runnable(settings)
            self._begin(partial(measure, settings), PIECES, self._finish)
            if self.measured is not None:
                self.measured = None
                self.show(self._view())

    def _finish(self, found: Measured) -> str:
        self.measured = found
        self.show(self._view())
        return found.sentence

    # ---- what the browser draws ------------------------------------------------------------------------------------

    def _view(self) -> dict[str, Any]:
        self._edition += 1
        settings = self._shown
        limits = None if settings.limit is None else [settings.limit * 1e6] * settings.devices
        return {
            "edition": self._edition,
            "full": self._full,
            "controls": [self._control(control(name)) for name in self._names()],
            "preset": self._preset(),
            "sizes": settings.sizes,
            "said": self._said,
            "problem": None if self.problem is None else self.problem.to_json(),
            "phases": any(one.has_steady_phase for one in self._both()),
            "scenes": [
                scene(t, limits=limits, whole=False, title=f"{_title(one)}: {_sizes(one, t)}")
                for one, t in zip(self._both(), self.timelines, strict=True)
            ],
            "figures": [
                [asdict(one) | {"math": mathml(one.formula) if one.formula else ""} for one in found]
                for found in self._found()
            ],
            "titles": [_title(one) for one in self._both()],
            "notes": self._notes(),
            "code": self.code,
            "curve": self._curve_view(),
            "measured": None if self.measured is None else self._measured(self.measured),
        }

    def _names(self) -> list[str]:
        """The controls that are shown now: chunks, warm-up and halves of a backward belong to some schedules each."""
        used = [one for one in (self.settings, self.settings.other()) if one is not None]
        hidden = set()
        if self._full:
            hidden |= {"chunks"} if all(one.recipe.chunks for one in used) else set()
            hidden |= {"input_gradient", "weight_gradient"} if not any(one.splits for one in used) else set()
            hidden |= {"warmup"} if self.settings.schedule != "1f1b" else set()
            hidden |= {"batch"} if self.settings.fixed != BATCH else set()
        return [name for name in CONTROLS if name in self._free and name not in hidden]

    def _control(self, one: Control) -> dict[str, Any]:
        told = asdict(one) | {"value": getattr(self.settings, one.name)}
        if one.kind in ("choice", "either"):
            told["choices"] = [list(pair) for pair in choices(one.name)]
        return told

    def _preset(self) -> str:
        return "" if self._full else beside.preset(self.settings, self._free)

    def _found(self) -> list[tuple[Figure, ...]]:
        both = self._both()
        return [
            figures(one, t, beside=other) for one, t, other in zip(both, self.timelines, reversed(both), strict=True)
        ]

    def _notes(self) -> str:
        """Below the figures, as HTML."""
        both, told = self._both(), ""
        if self.measured is not None:
            told = "Measured figures are those of this machine; the other figures follow the settings."
            if len(both) > 1:
                told += f" The picture shows {_title(both[1])} again when you change a control."
        return beside.notes(both, self._found(), told)

    def _measured(self, found: Measured) -> dict[str, Any]:
        pair = [found.predicted, found.measured]
        longest = max(map(extent, pair))
        title = f"{_title(self._shown)}: {words.size_words(found.measured.schedule)}"
        return {
            "scenes": [scene(timeline, title=title, longest=longest) for timeline in pair],
            "names": ["predicted", "measured"],
            "sentence": found.sentence,
            "bubbles": [100 * timeline.bubble_fraction for timeline in pair],
            "peaks": [peak / 1e6 for peak in found.peak_activation_bytes],
        }

    def _curve_view(self) -> dict[str, Any]:
        choice_of = [name for name in AGAINST if name in self._names()] or [self._against]
        figure, against = self._figure, self._against if self._against in choice_of else choice_of[0]
        lines = []
        done = True
        for settings, timeline in zip(self._both(), self.timelines, strict=True):
            curve = self._curves.curve(settings, figure, against)
            done = done and curve.done
            points = [[x, curve.values[x]] for x in curve.places if curve.values.get(x) is not None]
            now = _value_now(figure, settings, timeline)
            here = [getattr(settings, against), now]
            lines.append({"name": _title(settings), "points": points, "now": here, "over": sorted(curve.over)})
        label, unit, _ = FIGURES[figure]
        return {
            "figure": figure,
            "against": against,
            "label": f"{label}{f', {unit}' if unit else ''}",
            "across": CONTROLS[against].label,
            "figures": [[name, entry[0]] for name, entry in FIGURES.items()],
            "againsts": [[name, CONTROLS[name].label] for name in choice_of],
            "lines": lines,
            "done": done,
        }


def _value_now(figure: str, settings: Settings, timeline: Timeline) -> float | None:
    value = FIGURES[figure][2](settings, timeline)
    return value if math.isfinite(value) else None


def _title(settings: Settings) -> str:
    title = settings.recipe.title + (" with recomputation" if settings.recompute else "")
    if settings.schedule == "1f1b" and settings.warmup:
        depths = (max(settings.devices - 1 - r + settings.warmup, 0) for r in range(settings.devices))
        title += f" with w = {', '.join(str(min(w, settings.microbatches)) for w in depths)}"
    return title


def _sizes(settings: Settings, timeline: Timeline) -> str:
    if settings.steps == 1:
        return words.size_words(timeline.schedule)
    return f"{words.size_words(settings.build())} a step, {settings.steps} steps"


def explore(
    schedule: str | None = None,
    *,
    free: Iterable[str] | None = None,
    curve: str = CURVE,
    against: str | None = None,
    **settings: Any,
) -> Explorer:
    """Change a schedule's numbers in a notebook, and see the effect.

    ``explore()`` is the full explorer. ``explore("1f1b", free=["m"])`` is a preset: the reader can change only the
    settings in ``free``, by name or symbol. Symbols: m, p, v, w, tF, tB, tI, tW, alpha, L, B. One or two settings are
    usual. If m is free, so is ``fixed``.

    The keywords set the rest, by name or symbol: ``devices``, ``microbatches``, ``chunks``, ``forward``, ``backward``,
    ``input_gradient``, ``weight_gradient``, ``overhead``, ``latency``, ``fixed``, ``batch``, ``limit``, ``warmup``,
    ``recompute``, ``compare``. With ``fixed="microbatch"`` each micro-batch has 16 sequences; with ``fixed="batch"`` a
    batch of ``batch`` sequences is cut into m. ``limit`` is MB of activations alone (``Pipeline``'s memory_limit also
    counts weights, gradients and optimizer state). ``curve`` is the figure to draw ("makespan", "bubble", "idle",
    "rate", "held", "memory", "messages", "long run", "versions").
    ``against`` is the setting to draw it against (default: the first free one).

    *Run it* runs the shown schedule on the 48-layer model and draws the measurement below the prediction. Without a
    browser, the output is a static picture of the first state. Raises ConfigurationError for settings that do not exist
    or are impossible, with the nearest that work.

    >>> explore("gpipe", free=["m"], compare="1f1b", curve="held")
    """
    values = require_names(settings)
    if schedule is not None:
        values["schedule"] = schedule
    state, said = normalised(Settings(), values)
    if said:
        raise ConfigurationError(said)
    names = list(CONTROLS) if free is None else [control(name).name for name in _listed(free)]
    if "microbatches" in names and "fixed" not in names:
        names.append("fixed")  # what m does to times and memory depends on it
    if curve not in FIGURES:
        raise ConfigurationError(f"curve is one of {', '.join(FIGURES)}, not '{curve}'")
    if against is None:
        axis = axis_of(None if free is None else names)
    else:
        axis = control(against).name
        if axis not in AGAINST:
            raise ConfigurationError(f"against is one of {', '.join(AGAINST)}, not '{against}'")
    return Explorer(replace(state), names, full=free is None, figure=curve, against=axis)


def _listed(free: Iterable[str]) -> list[str]:
    return [free] if isinstance(free, str) else list(free)
