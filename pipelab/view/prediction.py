"""A prediction and a measurement, device by device on one time axis."""

from __future__ import annotations

from pipelab.timeline import Comparison, Timeline, compare
from pipelab.view import legend, words
from pipelab.view.drawing import Drawing, Ruler
from pipelab.view.letters import text_width
from pipelab.view.page import EDGE, Page, Words
from pipelab.view.palette import CAPTION
from pipelab.view.picture import Picture, plain_style
from pipelab.view.rows import extent

__all__ = ["plot_prediction"]

_NAME, _WHICH = 9.0, 7.0  # sizes of text
_WHICHES = ("predicted", "measured")
_SEAM = 1.0  # points between prediction and measurement


@plain_style()
def plot_prediction(
    predicted: Timeline, measured: Timeline, *, title: str | None = None, width: float | None = None
) -> Picture:
    """Draw a prediction over a measurement: for each device the predicted slots above, the measured ones below.

    If their units differ (a prediction in "units" has no seconds), the prediction is stretched until both makespans
    agree, and the caption says so. Neither needs to be a prediction: any two timelines of one number of devices do.
    ``width`` is in inches (default 10.5). Raises ConfigurationError if the numbers of devices differ.

    >>> plot_prediction(simulate(schedule, profile), pipeline.step(inputs, targets).timeline)
    """
    both = compare(predicted, measured)
    devices = predicted.schedule.devices
    same_unit = predicted.unit == measured.unit
    stretch = 1.0 if same_unit or not predicted.makespan else both.makespan_ratio
    longest = max(extent(predicted) * stretch, extent(measured))
    unit, factor = words.time_scale(measured.unit, longest)
    until = (longest or 1.0) * factor
    rulers = (Ruler(predicted.start, factor * stretch), Ruler(measured.start, factor))
    half, between = (13.0, 10.0) if devices <= 8 else (8.5, 5.0)
    if devices <= 8 and words.versions_note([predicted, measured]):
        half = 20.0  # room for versions
    pitch = 2 * half + _SEAM + between
    names = [predicted.words.device(device) for device in range(devices)]
    name = max(text_width(one, _NAME) for one in names)
    page = Page(
        _words(both, title, stretch, same_unit),
        legend.groups([predicted, measured], makespans=True),
        body=devices * pitch - between + 5,
        left=name + 10 + max(text_width(which, _WHICH) for which in _WHICHES) + 8,
        right=6.0,
        until=until,
        time_unit=unit,
        width=width,
    )
    drawing = Drawing(page)
    for device in range(devices):
        top = device * pitch
        page.write(EDGE, page.top + top + half + _SEAM / 2, names[device], _NAME, gid="device")
        for k, timeline in enumerate((predicted, measured)):
            y = top + k * (half + _SEAM)
            where = page.top + y + half / 2
            page.write(page.left - 5, where, _WHICHES[k], _WHICH, align="right", colour=CAPTION, gid="which")
            drawing.blocks(timeline, device, rulers[k], y, half)
            page.mark(rulers[k].at(timeline.end), y - 1, y + half + 1)
    drawing.finish()
    return page.picture


def _words(both: Comparison, title: str | None, stretch: float, same_unit: bool) -> Words:
    predicted, measured = both.first, both.second
    schedule = measured.schedule
    longest = max(extent(timeline) for timeline in (predicted, measured)) if same_unit else None
    times = [words.time_words(timeline.makespan, timeline.unit, longest) for timeline in (predicted, measured)]
    bubbles = [words.percent(timeline.bubble_fraction) for timeline in (predicted, measured)]
    headline = (
        f"makespan {times[0]} predicted, {times[1]} measured · "
        f"bubble fraction {bubbles[0]} predicted, {bubbles[1]} measured"
    )
    notes = [f"Clock above: {predicted.clock_name}. Clock below: {measured.clock_name}."]
    if not same_unit:
        one = words.time_words(stretch, measured.unit)
        notes.append(
            f"Predicted times are in {predicted.unit} and are stretched so that both makespans agree: "
            f"1 {'unit' if predicted.unit == 'units' else predicted.unit} is drawn as {one}."
        )
    if not both.same_order:
        notes.append("The two did not run the same actions in the same order.")
    if title is None:
        title = f"{words.schedule_title(schedule)}: {words.size_words(schedule)}"
    alt = words.sentences(
        f"{title}, predicted above, measured below." if title else "",
        *notes[1:],
        f"Predicted: {words.alt_timeline(predicted)}",
        f"Measured: {words.alt_timeline(measured)}",
    )
    notes.append(words.versions_note([predicted, measured]))
    return Words(title, headline, words.sentences(*notes, measured.words.counting), alt)
