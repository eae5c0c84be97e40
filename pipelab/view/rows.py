"""The rows of one timeline: how high they are, what is written beside them, and what is drawn into them."""

from __future__ import annotations

from dataclasses import dataclass

from pipelab.schedules.schedule import Schedule
from pipelab.timeline import Timeline
from pipelab.timeline.messages import lanes
from pipelab.view.drawing import Drawing, Ruler
from pipelab.view.letters import text_width
from pipelab.view.memory import Held
from pipelab.view.page import EDGE, Page
from pipelab.view.palette import CAPTION

__all__ = ["Heights", "Panel", "extent"]

_SMALL, _PEAK = 7.0, 7.5  # sizes of text


@dataclass(frozen=True)
class Heights:
    """In points: phases, blocks, strips of memory and of versions, a lane of messages, and the room between devices."""

    phases: float
    blocks: float
    memory: float
    between: float
    versions: float = 0.0
    lane: float = 0.0

    @classmethod
    def alone(cls, devices: int, phases: bool, memory: bool, versions: bool = False) -> Heights:
        """For one timeline. The more devices, the flatter: 16 of them still fit on a laptop's screen."""
        sizes = (10, 26, 24, 12) if devices <= 4 else (9, 20, 18, 9) if devices <= 8 else (3, 13, 10, 6)
        return cls._with(sizes, phases, memory, versions)

    @classmethod
    def stacked(cls, devices: int, phases: bool, memory: bool, versions: bool = False) -> Heights:
        """For a timeline among others."""
        sizes = (9, 20 if versions else 15, 12, 2) if devices <= 8 else (3, 9, 8, 1)
        return cls._with((*sizes[:3], sizes[3] + (5 if phases or memory else 0)), phases, memory, versions and memory)

    @classmethod
    def _with(cls, sizes: tuple[int, ...], phases: bool, memory: bool, versions: bool) -> Heights:
        strip, high, low, between = map(float, sizes)
        kept = max(low - 8, 6.0) if versions else 0.0
        return cls(strip if phases else 0.0, high, low if memory else 0.0, between, kept)

    @property
    def block_top(self) -> float:
        """From the top of a device's rows to its blocks."""
        return self.phases + 1 if self.phases else 0.0

    @property
    def lanes_top(self) -> float:
        """From the top of a device's rows to its lane of sends, with that of receives below."""
        return self.block_top + self.blocks + (2 if self.lane else 0)

    @property
    def memory_top(self) -> float:
        """From the top of a device's rows to its memory strip."""
        return self.lanes_top + 2 * self.lane + (3 if self.memory else 0)

    @property
    def versions_top(self) -> float:
        """From the top of a device's rows to its strip of weight versions."""
        return self.memory_top + self.memory + (3 if self.versions else 0)

    @property
    def pitch(self) -> float:
        """From one device to the next."""
        return self.versions_top + self.versions + self.between

    @property
    def flat(self) -> bool:
        """Whether text beside a row has to stay in one line."""
        return self.blocks < 18


def extent(timeline: Timeline) -> float:
    """How much time there is to draw: the makespan, and the updates behind it."""
    return max((timeline.end, *(span.end for span in timeline.updates))) - timeline.start


class Panel:
    """The rows of one timeline. ``left`` and ``right`` are the points that the text beside them takes."""

    def __init__(self, timeline: Timeline, heights: Heights, curve: Held | None, versions: Held | None = None) -> None:
        schedule = timeline.schedule
        self.timeline, self.heights = timeline, heights
        places = ((curve, heights.memory_top, heights.memory), (versions, heights.versions_top, heights.versions))
        self._lanes = lanes((*timeline.messages, *timeline.sums), schedule.devices) if heights.lane else []
        self._strips = [(strip, top, high) for strip, top, high in places if strip is not None and high]
        self.height = schedule.devices * heights.pitch - heights.between
        self._name_size = (8.0 if heights.blocks >= 12 else 7.0) if heights.flat else 9.0
        named = schedule.chunks > 1 and heights.pitch >= 19
        stages = [_listed(schedule, r) for r in range(schedule.devices)] if named else []
        self._stages = stages or [""] * schedule.devices
        self._names = [schedule.words.device(r) for r in range(schedule.devices)]
        name = max(text_width(text, self._name_size) for text in self._names)
        name = max(name, *(text_width(text, _SMALL) for text in self._stages), 0.0)
        shown = [strip for strip, _, _ in self._strips]
        scales = [text_width(one.axis, _SMALL) + 6 + text_width(f"{one.top:g}", _SMALL) for one in shown]
        named_lanes = [text_width(lane.name, _SMALL) + 4 for lane in self._lanes]
        self.left = max([name, *scales, *named_lanes]) + 8
        peaks = [_peak(one, r) for one in shown for r in range(schedule.devices)]
        self.right = max((text_width(peak, _PEAK) + 5 for peak in peaks), default=0.0)

    def draw(self, page: Page, drawing: Drawing, top: float, ruler: Ruler, *, panel: int = 0) -> None:
        """Draw the rows, ``top`` points below the first on the page; ``panel`` counts the timelines on it."""
        heights = self.heights
        until = ruler.at(self.timeline.start + extent(self.timeline))
        for lane in self._lanes:
            y = top + lane.device * heights.pitch + heights.lanes_top + (lane.name == "receives") * heights.lane
            drawing.lane(lane, ruler, y + 0.5, heights.lane - 1)
            if not heights.flat:
                middle = page.top + y + heights.lane / 2
                page.write(page.left - 4, middle, lane.name, _SMALL, align="right", colour=CAPTION, gid="lane")
        for device in range(self.timeline.schedule.devices):
            y = top + device * heights.pitch
            self._name(page, device, page.top + y + heights.block_top + heights.blocks / 2)
            drawing.blocks(self.timeline, device, ruler, y + heights.block_top, heights.blocks, panel=panel)
            if heights.phases:
                drawing.phases(self.timeline, device, ruler, y, heights.phases)
            for strip, at, high in self._strips:
                drawing.memory(strip, device, ruler, until, y + at, high)
                self._scale(page, strip, device, page.top + y + at, high, until)

    def _name(self, page: Page, device: int, middle: float) -> None:
        stages = self._stages[device]
        shift = 5.0 if stages else 0.0
        page.write(EDGE, middle - shift, self._names[device], self._name_size, gid="device")
        if stages:
            page.write(EDGE, middle + shift, stages, _SMALL, colour=CAPTION, gid="stages")

    def _scale(self, page: Page, curve: Held, device: int, high: float, height: float, until: float) -> None:
        """Scale and peak of a strip; in flat rows only the first device's carries the scale."""
        low = high + height
        middle, left, right = (high + low) / 2, page.left - 4, page.left + until * page.points_per_time + 5
        top = f"{curve.top:g}"
        page.write(right, middle, _peak(curve, device), _PEAK, colour=CAPTION, gid="peak")
        if not self.heights.flat and height < 2 * _SMALL + 2:
            page.write(left, high + 3, top, _SMALL, align="right", colour=CAPTION, gid="scale")
            page.write(EDGE, middle, curve.axis, _SMALL, colour=CAPTION, gid="scale")
        elif not self.heights.flat:
            page.write(left, high + 3, top, _SMALL, align="right", colour=CAPTION, gid="scale")
            page.write(left, low - 3, "0", _SMALL, align="right", colour=CAPTION, gid="scale")
            page.write(EDGE, middle, curve.axis, _SMALL, colour=CAPTION, gid="scale")
        elif device == 0:
            page.write(left, middle, f"{curve.axis}  {top}", _SMALL, align="right", colour=CAPTION, gid="scale")


def _peak(curve: Held, device: int) -> str:
    return f"peak {curve.words(curve.peaks[device])}"


def _listed(schedule: Schedule, device: int) -> str:
    """ "stages 0, 4", or their names; many are shortened."""
    names = schedule.words.stages
    stages = [names[s] if names else str(s) for s in schedule.stages_on(device)]
    shown = stages if len(stages) <= 4 else [*stages[:2], "…", stages[-1]]
    return ("" if names else "stage " if len(stages) == 1 else "stages ") + ", ".join(shown)
