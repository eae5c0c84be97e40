"""One timeline: a row of blocks per device, its phases above, its memory below."""

from __future__ import annotations

from dataclasses import replace

from pipelab.timeline import Timeline
from pipelab.view import legend, words
from pipelab.view.drawing import Drawing, Ruler
from pipelab.view.memory import held, kept_versions
from pipelab.view.page import Page, Words
from pipelab.view.picture import Picture, plain_style
from pipelab.view.rows import Heights, Panel, extent

__all__ = ["plot_timeline"]


@plain_style()
def plot_timeline(
    timeline: Timeline,
    *,
    title: str | None = None,
    memory: bool = True,
    phases: bool = True,
    lanes: bool = False,
    width: float | None = None,
) -> Picture:
    """Draw a timeline, predicted or measured.

    One row per device, device 0 at the top: a block per slot with op and micro-batch, idle time hatched. ``phases``
    adds a strip with warm-up, steady phase and cool-down above each row. ``memory`` adds a strip below it with what the
    device holds: activation bytes where the timeline knows them, else sequences or micro-batches in flight. Updates
    stand behind the makespan. Where weights change on the way, blocks carry the version that they use, "v3", and a last
    strip has the number of versions that the device keeps.
    ``lanes`` adds two thin lanes below each row: what the device sends, then what it receives. Each message is a bar
    from when it is sent until it arrives. ``width`` is in inches (default 10.5).

    The picture is shown where it is a notebook cell's value; ``.save("run.png")`` writes PNG, SVG or PDF, ``.alt`` is
    what it shows in words. Raises ConfigurationError for a width without room for it.

    >>> plot_timeline(simulate(build_schedule("1f1b", devices=4, microbatches=8))).save("1f1b.svg")
    """
    schedule = timeline.schedule
    phases = phases and not timeline.words.stages
    curves = held([timeline]) if memory else []
    (versions,) = kept_versions([timeline])
    heights = Heights.alone(schedule.devices, phases, memory, versions is not None)
    if lanes:
        heights = replace(heights, lane=4.0 if heights.flat else 8.0)
    panel = Panel(timeline, heights, curves[0] if curves else None, versions)
    end = extent(timeline)
    unit, factor = words.time_scale(timeline.unit, end)
    alt = words.alt_timeline(timeline)
    if title is None:
        title = f"{words.schedule_title(schedule)}: {words.size_words(schedule)}"
    elif title:
        alt = f"{title}. {alt}"
    clock, below = f"Clock: {timeline.clock_name}.", words.lanes_note(timeline) if lanes else ""
    notes = (words.memory_note([timeline], curves), words.versions_note([timeline], strips=True))
    caption = words.sentences(clock, below, *notes, timeline.words.counting)
    page = Page(
        Words(title, words.headline(timeline, end), caption, words.sentences(alt, below)),
        legend.groups([timeline], phases=phases, curves=curves, updates=end > timeline.makespan, lanes=lanes),
        body=panel.height + 5,
        left=panel.left,
        right=panel.right,
        until=(end or 1.0) * factor,
        time_unit=unit,
        width=width,
    )
    drawing, ruler = Drawing(page), Ruler(timeline.start, factor)
    panel.draw(page, drawing, 0.0, ruler)
    drawing.finish()
    if end > timeline.makespan:
        page.mark(ruler.at(timeline.end), 0.0, page.body, dashed=True)
    return page.picture
