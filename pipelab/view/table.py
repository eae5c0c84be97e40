"""A table as it stands, sound or not, with places marked in it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from matplotlib.ticker import MaxNLocator

from pipelab.schedules.action import format_slot
from pipelab.schedules.checker import Violation
from pipelab.schedules.schedule import Schedule, TimeTable
from pipelab.timeline import Span, Timeline
from pipelab.view import legend, words
from pipelab.view.drawing import Drawing, Ruler
from pipelab.view.letters import text_width
from pipelab.view.page import EDGE, Page, Words
from pipelab.view.picture import Picture, plain_style

__all__ = ["places_of", "plot_table"]


def places_of(table: Schedule | TimeTable, violations: Iterable[Violation]) -> set[tuple[int, int]]:
    """(device, column) of what the checker refuses; of a wait cycle all actions that wait in it."""
    rows = table.rows if isinstance(table, TimeTable) else table.programs
    texts = [[None if slot is None else format_slot(slot) for slot in row] for row in rows]
    found = set()
    for violation in violations:
        if violation.position is not None:
            found.add((violation.device, violation.position))
        found |= {(device, texts[device].index(slot)) for device, slot, _ in violation.cycle if slot in texts[device]}
    return found


@plain_style()
def plot_table(
    table: Schedule | TimeTable,
    *,
    title: str = "",
    marked: Collection[tuple[int, int]] = (),
    note: str = "",
    cells: bool = False,
    width: float | None = None,
) -> Picture:
    """Draw the rows of ``table`` and frame the cells ``marked``: (device, column) pairs.

    A Schedule is drawn in the order of its programs, side by side, for it has no times; a TimeTable with one column per
    time slot. Any table can be drawn, also one that the checker refuses. ``note`` says what the frames mean.
    ``cells`` draws the grid itself too: a board to be filled.
    """
    timed = isinstance(table, TimeTable)
    schedule = table.schedule() if isinstance(table, TimeTable) else table
    rows = table.rows if isinstance(table, TimeTable) else table.programs
    spans = tuple(
        Span(device, column, slot, float(column), float(column + 1))
        for device, row in enumerate(rows)
        for column, slot in enumerate(row)
        if slot is not None
    )
    timeline = Timeline(schedule=schedule, spans=spans)
    names = [schedule.words.device(device) for device in range(len(rows))]
    columns = max(map(len, rows), default=0) or 1
    kind = "Columns are time slots." if timed else "Columns are the order on each device, not times."
    caption = words.sentences(note, kind, words.versions_note([timeline]), schedule.words.counting)
    listed = "; ".join(
        f"{names[device]}: " + " ".join("idle" if slot is None else schedule.words.slot(slot) for slot in row)
        for device, row in enumerate(rows)
    )
    alt = words.sentences(f"{title}." if title else "", note, f"Rows: {listed}.", words.versions_used(timeline))
    high, between = (22.0, 4.0) if len(rows) <= 8 else (14.0, 2.0)
    page = Page(
        Words(title, "", caption, alt),
        legend.table_entries(timeline),
        body=len(rows) * (high + between) - between + 5,
        left=max(text_width(name, 9.0) for name in names) + 8,
        right=4.0,
        until=float(columns),
        time_unit="slots",
        axis="time (slots)" if timed else "place in the order",
        width=width,
    )
    page.axes.xaxis.set_major_locator(MaxNLocator(min(columns, 16), integer=True))
    drawing, ruler = Drawing(page), Ruler(0.0, 1.0)
    for device in range(len(rows)):
        top = device * (high + between)
        page.write(EDGE, page.top + top + high / 2, names[device], 9.0, gid="device")
        for column in range(columns) if cells else ():
            drawing.cell(column, column + 1, top, top + high)
        drawing.slots(timeline, device, ruler, top, high)
    for device, column in marked:
        top = device * (high + between)
        drawing.mark(column, column + 1, top, top + high)
    drawing.finish()
    return page.picture
