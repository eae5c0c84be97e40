"""A legend that flows in lines as text does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from pipelab.schedules.action import OPS, actions_of
from pipelab.schedules.phases import NAMES
from pipelab.schedules.phases import phases as phases_of
from pipelab.timeline import Timeline
from pipelab.view import palette
from pipelab.view.letters import FONT, text_width
from pipelab.view.memory import Held
from pipelab.view.words import message_kinds

__all__ = ["Entry", "flow", "groups", "table_entries"]

SIZE = 8.0
SWATCH, HIGH = 15.0, 11.0  # points
LINE = 17.0
_AFTER_SWATCH, _AFTER_ENTRY, _AFTER_GROUP = 4.0, 12.0, 14.0
_OP_NAMES = {
    "F": "forward",
    "B": "backward",
    "I": "backward: input gradient",
    "W": "backward: weight gradient",
    "R": "recompute forward",
    "U": "optimizer update",
}


@dataclass(frozen=True)
class Entry:
    """A swatch and its meaning. ``kind`` is "block", "idle", "phase", "memory", "line" or "dashes".

    ``more``: colours that stand in the swatch beside ``colour``, from left to right.
    """

    text: str
    kind: str
    colour: str
    letter: str = ""
    more: tuple[str, ...] = ()
    x: float = 0.0
    y: float = 0.0

    @property
    def width(self) -> float:
        """In points."""
        return SWATCH + _AFTER_SWATCH + text_width(self.text, SIZE)

    def draw(self, sheet: Axes, left: float, top: float) -> None:
        """Draw it on a sheet whose unit is the point."""
        x, y = left + self.x, top + self.y
        middle = y + LINE / 2
        _letters(sheet, x + SWATCH + _AFTER_SWATCH, middle, self.text, palette.INK, "left")
        if self.kind in ("line", "dashes"):
            _line(sheet, [x + SWATCH / 2] * 2, [middle - HIGH / 2, middle + HIGH / 2], self.colour, self.kind)
            return
        high = HIGH if self.kind != "phase" else 5.0
        box = Rectangle((x, middle - high / 2), SWATCH, high, facecolor=self.colour, linewidth=0)
        if self.kind == "idle":
            box.set(edgecolor=palette.IDLE_HATCH, hatch="/////")
        sheet.add_patch(box)
        part = SWATCH / (1 + len(self.more))
        for k, colour in enumerate(self.more, 1):
            sheet.add_patch(Rectangle((x + k * part, middle - high / 2), part, high, facecolor=colour, linewidth=0))
        if self.kind == "memory":
            _line(sheet, [x, x + SWATCH], [middle - high / 2] * 2, palette.MEMORY_LINE, "thin")
        if self.letter:
            _letters(sheet, x + SWATCH / 2, middle, self.letter, palette.text_colour(self.colour), "center")


def _letters(sheet: Axes, x: float, middle: float, text: str, colour: str, align: str) -> None:
    drawn = sheet.text(x, middle + 0.365 * SIZE, text, fontsize=SIZE, fontfamily=FONT, color=colour, ha=align)
    drawn.set(va="baseline", parse_math=False)


def _line(sheet: Axes, xs: list[float], ys: list[float], colour: str, kind: str) -> None:
    line = Line2D(xs, ys, color=colour, linewidth={"line": 1.6, "dashes": 1.2, "thin": 0.9}[kind])
    line.set(solid_capstyle="butt", linestyle=(0, (3, 2)) if kind == "dashes" else "solid")
    sheet.add_line(line)


def flow(entries: Iterable[Sequence[Entry]], width: float) -> tuple[list[Entry], float]:
    """Place entries from left to right in lines of ``width`` points. Returns them with their places, and the height."""
    placed: list[Entry] = []
    x = y = 0.0
    for group in entries:
        whole = sum(entry.width + _AFTER_ENTRY for entry in group) - _AFTER_ENTRY
        if x and x + whole > width:
            x, y = 0.0, y + LINE
        for entry in group:
            if x and x + entry.width > width:
                x, y = 0.0, y + LINE
            placed.append(replace(entry, x=x, y=y))
            x += entry.width + _AFTER_ENTRY
        x += _AFTER_GROUP
    return placed, y + LINE if placed else 0.0


def groups(
    timelines: Sequence[Timeline],
    *,
    phases: bool = False,
    curves: Sequence[Held] = (),
    updates: bool = False,
    makespans: bool = False,
    lanes: bool = False,
) -> list[list[Entry]]:
    """What occurs in a picture of ``timelines``, in groups; ``updates`` and ``makespans`` add their lines."""
    drawn = [*_op_entries(timelines), Entry("idle", "idle", palette.IDLE)]
    drawn += [Entry("makespan", "line", palette.INK)] if makespans else []
    found = [drawn, _chunk_entries(timelines), _phase_entries(timelines) if phases else []]
    found.append([Entry(curves[0].name, "memory", palette.MEMORY)] if curves else [])
    kinds = message_kinds(timelines) if lanes else []
    found.append([Entry(f"{kind} under way", "phase", palette.MESSAGES[kind]) for kind in kinds])
    found.append([Entry("end of the makespan", "dashes", palette.INK)] if updates else [])
    return [group for group in found if group]


def _op_entries(timelines: Sequence[Timeline]) -> list[Entry]:
    """The ops that are drawn, in the order F B I W R U; and stages that have names."""
    plain = [timeline for timeline in timelines if not timeline.words.stages]
    spans = [span for timeline in plain for span in (*timeline.spans, *timeline.updates)]
    ops = {action.op for span in spans for action in actions_of(span.slot)}
    stages = dict.fromkeys(look for timeline in timelines for look in palette.stage_looks(timeline.schedule))
    return [
        *(Entry(_OP_NAMES[op], "block", palette.OPS[op], op) for op in OPS if op in ops),
        *(Entry(name, "block", colour, letter) for letter, name, colour in stages),
    ]


def table_entries(timeline: Timeline) -> list[list[Entry]]:
    """What occurs in a picture of a table, without times."""
    return [group for group in (_op_entries([timeline]), _chunk_entries([timeline])) if group]


def _chunk_entries(timelines: Sequence[Timeline]) -> list[Entry]:
    shades = palette.chunk_shades([timeline.schedule for timeline in timelines])
    return [Entry(name, "block", first, more=tuple(more)) for name, (first, *more) in shades]


def _phase_entries(timelines: Sequence[Timeline]) -> list[Entry]:
    """The phases that occur."""
    programs = [program for timeline in timelines for program in timeline.schedule.programs]
    found = {phase.name for program in programs for phase in phases_of(program)}
    return [Entry(name, "phase", palette.PHASES[name]) for name in NAMES if name in found]
