"""Several timelines below one another, on one time axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelab.errors import ConfigurationError
from pipelab.timeline import Timeline
from pipelab.view import legend, words
from pipelab.view.drawing import Drawing, Ruler
from pipelab.view.letters import text_width, wrap
from pipelab.view.memory import Held, held, kept_versions
from pipelab.view.page import EDGE, Page, Words, inner_width
from pipelab.view.palette import CAPTION
from pipelab.view.picture import Picture, plain_style
from pipelab.view.rows import Heights, Panel, extent

__all__ = ["plot_schedules"]

_TITLE, _FIGURES, _MARK = 9.5, 8.5, 8.0  # sizes of text
_LINE, _AFTER = 14.0, 12.0  # points for a line of a panel's title, and below a panel


@plain_style()
def plot_schedules(
    timelines: Sequence[Timeline],
    titles: Sequence[str] | None = None,
    *,
    title: str = "",
    memory: bool = False,
    phases: bool = False,
    width: float | None = None,
) -> Picture:
    """Draw several timelines on one time axis, so that their lengths can be compared by eye.

    Each has its title (default: its schedule's), its headline figures and a line at its makespan. With ``memory`` all
    strips share one scale. ``title`` stands above all of them, ``width`` is in inches (default 10.5).

    Raises ConfigurationError where there is nothing to draw, titles do not match the timelines, or units differ (one
    axis cannot carry both; ``plot_prediction`` scales a prediction to a measurement).

    >>> plot_schedules([simulate(build_schedule(name, devices=4, microbatches=4)) for name in ("naive", "gpipe")])
    """
    timelines = list(timelines)
    names = _names(timelines, titles)
    curves = held(timelines) if memory else []
    panels = [
        Panel(
            timeline,
            Heights.stacked(timeline.schedule.devices, phases, memory, versions is not None),
            curves[k] if curves else None,
            versions,
        )
        for k, (timeline, versions) in enumerate(zip(timelines, kept_versions(timelines), strict=True))
    ]
    longest = max(map(extent, timelines))
    unit, factor = words.time_scale(timelines[0].unit, longest)
    marks = [words.time_words(timeline.makespan, timeline.unit, longest) for timeline in timelines]
    heads = [
        _head(name, words.headline(timeline, longest), inner_width(width))
        for name, timeline in zip(names, timelines, strict=True)
    ]
    beside = max(text_width(mark, _MARK, "bold") for mark in marks) + 7
    page = Page(
        Words(title, "", _caption(timelines, names, curves), _alt(timelines, titles, title)),
        legend.groups(timelines, phases=phases, curves=curves, makespans=True),
        body=sum(head.height + panel.height + _AFTER for head, panel in zip(heads, panels, strict=True)) - _AFTER + 5,
        left=max(panel.left for panel in panels),
        right=max(panel.right for panel in panels) if memory else beside,
        until=(longest or 1.0) * factor,
        time_unit=unit,
        width=width,
    )
    drawing = Drawing(page)
    top = 0.0
    for k, (panel, head) in enumerate(zip(panels, heads, strict=True)):
        timeline = panel.timeline
        ruler = Ruler(timeline.start, factor)
        head.write(page, top)
        top += head.height
        panel.draw(page, drawing, top, ruler, panel=k)
        page.mark(ruler.at(timeline.end), top - 2, top + panel.height + 2)
        if not memory:  # else the peaks stand there
            behind = page.left + extent(timeline) * factor * page.points_per_time + 5
            page.write(behind, page.top + top + panel.height / 2, marks[k], _MARK, weight="bold", gid="makespan")
        top += panel.height + _AFTER
    drawing.finish()
    return page.picture


@dataclass(frozen=True)
class _Head:
    """Title and figures above a panel: ``figures`` behind the last line of the title, where there is room."""

    lines: tuple[str, ...]
    figures: str
    shift: float

    @property
    def height(self) -> float:
        """In points."""
        return _LINE * len(self.lines) + 3

    def write(self, page: Page, top: float) -> None:
        """Write it ``top`` points below the first row on the page."""
        middles = [page.top + top + _LINE * (k + 0.5) for k in range(len(self.lines))]
        for line, middle in zip(self.lines, middles, strict=True):
            page.write(EDGE, middle, line, _TITLE, weight="bold", gid="title")
        page.write(EDGE + self.shift, middles[-1], self.figures, _FIGURES, colour=CAPTION, gid="figures")


def _head(name: str, figures: str, width: float) -> _Head:
    lines = wrap(name, _TITLE, width, "bold") if name else [""]
    shift = text_width(lines[-1], _TITLE, "bold") + 12 if name else 0.0
    if shift + text_width(figures, _FIGURES) > width:
        lines, shift = [*lines, ""], 0.0
    return _Head(tuple(lines), figures, shift)


def _names(timelines: Sequence[Timeline], titles: Sequence[str] | None) -> list[str]:
    """The panels' titles. Raises ConfigurationError where the timelines cannot share a picture."""
    if not timelines:
        raise ConfigurationError("there is no timeline to draw; give at least one")
    if titles is not None and (isinstance(titles, str) or len(titles) != len(timelines)):
        given = "one text" if isinstance(titles, str) else f"{len(titles)} titles"
        raise ConfigurationError(f"{given} for {len(timelines)} timelines; give a list of {len(timelines)}, or none")
    schedules = [timeline.schedule for timeline in timelines]
    default = [f"{words.schedule_title(schedule)}: {words.size_words(schedule)}" for schedule in schedules]
    names = default if titles is None else list(titles)
    if len({timeline.unit for timeline in timelines}) > 1:
        shown = ", ".join(f"'{name}' is in {timeline.unit}" for name, timeline in zip(names, timelines, strict=True))
        raise ConfigurationError(
            f"timelines in different units have no common time axis: {shown}; read all of them from one clock, or lay "
            "two over each other with plot_prediction"
        )
    return names


def _caption(timelines: Sequence[Timeline], names: Sequence[str], curves: Sequence[Held]) -> str:
    clocks = {timeline.clock_name for timeline in timelines}
    if len(clocks) == 1:
        clock = f"Clock: {clocks.pop()}."
    else:
        each = (f"{name}: {timeline.clock_name}" for name, timeline in zip(names, timelines, strict=True))
        clock = f"Clocks: {'; '.join(each)}."
    notes = (words.memory_note(timelines, curves), words.versions_note(timelines, strips=bool(curves)))
    return words.sentences(clock, *notes, *dict.fromkeys(timeline.words.counting for timeline in timelines))


def _alt(timelines: Sequence[Timeline], titles: Sequence[str] | None, title: str) -> str:
    count = "1 timeline." if len(timelines) == 1 else f"{len(timelines)} timelines on one time axis."
    named = [""] * len(timelines) if titles is None else [f"{name}. " for name in titles]
    each = [f"{k + 1}: {named[k]}{words.alt_timeline(timeline)}" for k, timeline in enumerate(timelines)]
    return words.sentences(f"{title}." if title else "", count, *each)
