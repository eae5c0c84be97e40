"""Draws the rows of timelines on a page: blocks, idle time, phases, memory.

Shapes are gathered first and drawn as a few collections, so that thousands of slots take no longer than a blink.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.collections import PolyCollection
from matplotlib.lines import Line2D

from pipelab.schedules.action import Action, actions_of
from pipelab.schedules.phases import phases
from pipelab.timeline import Span, Timeline
from pipelab.timeline.messages import Lane
from pipelab.timeline.versions import Versions, versions_of
from pipelab.view import palette
from pipelab.view.letters import LINE, SIZES, best_fit, fits, text_width
from pipelab.view.memory import Held
from pipelab.view.page import Page

__all__ = ["Block", "Drawing", "Ruler"]

Corner = tuple[float, float]
_NEARLY_ALL = 0.9  # of an op's blocks must have room for a label, or a shorter one is taken
_ENOUGH = 0.6  # of them for the shortest, or none of them gets one
_VERSION = 7.0  # size of the version below a label
_TICK = 1.8  # points that an update is wide at least: it may take no time
_SHORTEST = 2  # of the forms of a label, counted from the longest
_AS_WIDE = str.maketrans("FBIR", "UUUU")  # ops that are equally long are to get equally long labels


@dataclass(frozen=True)
class Ruler:
    """Where a timeline's times stand on the axis: its start at 0, ``factor`` shown units to one of its own."""

    origin: float
    factor: float

    def at(self, time: float) -> float:
        """The place of ``time`` on the axis."""
        return (time - self.origin) * self.factor


@dataclass(frozen=True, slots=True)
class Block:
    """One action's rectangle: ``left`` and ``right`` on the time axis, ``top`` and ``bottom`` in points."""

    panel: int
    op: str
    forms: tuple[str, ...]
    """Its labels, the longest first."""
    colour: str
    left: float
    right: float
    top: float
    bottom: float
    version: str = ""
    """Below the label: of the weights that it uses."""


class Drawing:
    """Gathers the shapes of rows; :meth:`finish` puts them on the page."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._blocks: list[Block] = []
        self._idle: list[list[Corner]] = []
        self._fused: list[list[Corner]] = []
        self._phases: tuple[list[list[Corner]], list[str]] = ([], [])  # and their colours
        self._memory: list[list[Corner]] = []
        self._marked: list[list[Corner]] = []
        self._sent: tuple[list[list[Corner]], list[str]] = ([], [])  # and their colours
        self._cells: list[list[Corner]] = []
        self._versions: dict[int, Versions | None] = {}

    def blocks(self, timeline: Timeline, device: int, ruler: Ruler, top: float, high: float, *, panel: int = 0) -> None:
        """The slots of one device, its updates, and its idle time. Labels are of one size within a ``panel``."""
        for gap in timeline.gaps(device):
            self._idle.append(_box(ruler.at(gap.start), ruler.at(gap.end), top, top + high))
        self.slots(timeline, device, ruler, top, high, panel=panel)
        for span in timeline.updates:
            if span.device == device:
                left, right = ruler.at(span.start), ruler.at(span.end)
                short = _TICK / self._page.points_per_time - (right - left)
                left, right = (left - short / 2, right + short / 2) if short > 0 else (left, right)
                told = (_update_forms(timeline, span), palette.shade("U"))
                version = self._version(timeline, actions_of(span.slot)[0])
                self._blocks.append(Block(panel, "U", *told, left, right, top, top + high, version))

    def slots(self, timeline: Timeline, device: int, ruler: Ruler, top: float, high: float, *, panel: int = 0) -> None:
        """The slots of one device alone."""
        for span in timeline.on_device(device):
            self._slot(timeline, span, ruler, top, high, panel)

    def cell(self, left: float, right: float, top: float, bottom: float) -> None:
        """An empty cell of a grid, to be filled."""
        self._cells.append(_box(left, right, top, bottom))

    def mark(self, left: float, right: float, top: float, bottom: float) -> None:
        """A thick frame around a place that the text speaks of."""
        self._marked.append(_box(left, right, top, bottom))

    def _slot(self, timeline: Timeline, span: Span, ruler: Ruler, top: float, high: float, panel: int) -> None:
        """Parts of a fused slot run as one: they share its time, and stand one above the other."""
        left, right = ruler.at(span.start), ruler.at(span.end)
        stages = timeline.schedule.stages_on(span.device)
        parts = actions_of(span.slot)
        for k, action in enumerate(parts):
            chunk = stages.index(action.stage) if action.stage in stages else 0
            letter, colour = palette.look(timeline.schedule, action, chunk)
            edges = (left, right, top + high * k / len(parts), top + high * (k + 1) / len(parts))
            version = self._version(timeline, action)
            self._blocks.append(Block(panel, letter, _forms(timeline, action, letter), colour, *edges, version))
        if len(parts) > 1:
            self._fused.append(_box(left, right, top, top + high))

    def _version(self, timeline: Timeline, action: Action) -> str:
        """ "v3", where weights change on the way."""
        if id(timeline) not in self._versions:
            self._versions[id(timeline)] = versions_of(timeline)
        found = self._versions[id(timeline)]
        version = None if found is None else found.used.get(action)
        return "" if version is None else f"v{version}".replace("-", "−")

    def phases(self, timeline: Timeline, device: int, ruler: Ruler, top: float, high: float) -> None:
        """The strip of one device's phases; named where the words fit."""
        spans = {span.position: span for span in timeline.on_device(device)}
        for phase in phases(timeline.schedule.programs[device]):
            inside = [spans[k] for k in range(phase.start, phase.stop) if k in spans]
            if not inside:
                continue
            left, right = ruler.at(inside[0].start), ruler.at(inside[-1].end)
            colour = palette.PHASES[phase.name]
            self._phases[0].append(_box(left, right, top, top + high))
            self._phases[1].append(colour)
            if high >= 8.5 and (right - left) * self._page.points_per_time > text_width(phase.name, 7) + 4:
                ink = palette.text_colour(colour)
                self._page.label((left + right) / 2, top + high / 2, phase.name, 7, ink, "phase")

    def lane(self, lane: Lane, ruler: Ruler, top: float, high: float) -> None:
        """A bar for each message of a lane, from sent to arrived; those under way at once share its height."""
        for k, row in enumerate(lane.rows):
            for m in row:
                edges = (top + high * k / len(lane.rows), top + high * (k + 1) / len(lane.rows))
                self._sent[0].append(_box(ruler.at(m.sent), ruler.at(m.arrived), *edges))
                self._sent[1].append(palette.MESSAGES[m.kind])

    def memory(self, held: Held, device: int, ruler: Ruler, until: float, top: float, high: float) -> None:
        """The filled step curve of what one device holds, and its peak beside it."""
        floor = top + high
        level, corners = 0.0, [(0.0, floor)]
        lasting = {ruler.at(time): value for time, value in held.steps[device]}  # the last of those at one time
        for x, value in lasting.items():
            corners.append((x, floor - high * level))
            level = value * held.factor / held.top
            corners.append((x, floor - high * level))
        corners += [(until, floor - high * level), (until, floor)]
        self._memory.append(corners)

    def finish(self) -> None:
        """Draw everything that was gathered."""
        widths = [(block.right - block.left) * self._page.points_per_time for block in self._blocks]
        seams = [min(0.9, width / 12) if width > 3 else 0.0 for width in widths]  # white, between blocks
        boxes = [_box(block.left, block.right, block.top, block.bottom) for block in self._blocks]
        self._shapes("cells", self._cells, palette.IDLE, edge=palette.IDLE_HATCH, line=0.8)
        self._shapes("idle", self._idle, palette.IDLE, edge=palette.IDLE_HATCH, hatch="/////")
        self._shapes("memory", self._memory, palette.MEMORY)
        self._shapes("messages", *self._sent, edge="white", line=0.4)
        self._shapes("phases", *self._phases, edge="white", line=0.6)
        self._shapes("blocks", boxes, [block.colour for block in self._blocks], edge="white", line=seams, zorder=2)
        self._shapes("fused", self._fused, "none", edge=palette.INK, line=0.7, zorder=3)
        self._shapes("marked", self._marked, "none", edge=palette.INK, line=2.6, zorder=4)
        for corners in self._memory:
            xs, ys = zip(*corners[:-1], strict=True)
            line = Line2D(xs, ys, color=palette.MEMORY_LINE, linewidth=0.9, clip_on=False, zorder=2)
            line.set(solid_joinstyle="miter", solid_capstyle="butt")
            self._page.axes.add_line(line)
        self._labels(widths)

    def _shapes(
        self,
        gid: str,
        polygons: Sequence[Sequence[Corner]],
        colours: str | Sequence[str],
        *,
        edge: str = "none",
        line: float | Sequence[float] = 0.0,
        hatch: str | None = None,
        zorder: float = 1,
    ) -> None:
        if polygons:
            shapes = PolyCollection(polygons, facecolors=colours, edgecolors=edge, linewidths=line, hatch=hatch)
            shapes.set(gid=gid, zorder=zorder, clip_on=False)
            self._page.axes.add_collection(shapes, autolim=False)

    def _labels(self, widths: Sequence[float]) -> None:
        """Within a panel all labels have one form and one size: the longest that nearly all blocks have room for.

        A block that has less room takes a smaller size, and one that has none stays blank.
        """
        panels: dict[int, dict[str, list[tuple[Block, float]]]] = {}
        for block, width in zip(self._blocks, widths, strict=True):
            panels.setdefault(block.panel, {}).setdefault(block.op, []).append((block, width))
        for ops in panels.values():
            groups = [group for group in ops.values() if _size(group, _SHORTEST) is not None]
            if not groups:
                continue
            form, largest = _style(groups)
            for block, width in (pair for group in groups for pair in group):
                high = block.bottom - block.top
                found = best_fit([_label(block.forms, form)], width, high, largest)
                if found is not None:
                    x, y = (block.left + block.right) / 2, (block.top + block.bottom) / 2
                    ink = palette.text_colour(block.colour)
                    below = LINE * _VERSION
                    if block.version and fits(block.version, _VERSION, width, high - LINE * found[1]):
                        self._page.label(x, y + LINE * found[1] / 2, block.version, _VERSION, ink, "version")
                        y -= below / 2
                    self._page.label(x, y, *found, ink, "label")


def _style(groups: Sequence[Sequence[tuple[Block, float]]]) -> tuple[int, float]:
    """(which form, size) for all blocks, an op's in each of ``groups``: the longest for which each op has room."""
    for form in range(_SHORTEST + 1):
        sizes = [size for group in groups if (size := _size(group, form)) is not None]
        if len(sizes) == len(groups):
            break
    return form, min(sizes)


def _size(group: Sequence[tuple[Block, float]], form: int) -> float | None:
    """The largest size in which enough of an op's blocks have room for a form."""
    enough = _NEARLY_ALL if form + 1 < len(group[0][0].forms) else _ENOUGH
    texts = {_label(block.forms, form).translate(_AS_WIDE) for block, _ in group}
    widest = max(texts, key=len)  # all digits are equally wide
    for size in SIZES:
        room = sum(fits(widest, size, width, block.bottom - block.top) for block, width in group)
        if room >= enough * len(group):
            return size
    return None


def _label(forms: tuple[str, ...], form: int) -> str:
    """One of a block's labels; the shortest where it has fewer."""
    return forms[min(form, len(forms) - 1)]


def _update_forms(timeline: Timeline, span: Span) -> tuple[str, ...]:
    """Which update it is matters only where the table lists them: else there is one, at the flush."""
    actions = actions_of(span.slot)
    return (*_forms(timeline, actions[0], "U")[:-1], "U") if "U" in timeline.schedule.ops else ("U",)


def _forms(timeline: Timeline, action: Action, letter: str) -> tuple[str, ...]:
    """Labels from long to short: "4F0" where devices hold several stages, "F0", "0". Stages with names: "map 0", "M0".

    There a number alone would leave it to the colour which stage it is.
    """
    several = timeline.schedule.chunks > 1
    short = (f"{letter}{action.microbatch}", f"{action.microbatch}")
    if timeline.words.stages:
        return (timeline.words.slot(action), short[0])
    return (str(action), *short) if several else short


def _box(left: float, right: float, top: float, bottom: float) -> list[Corner]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]
