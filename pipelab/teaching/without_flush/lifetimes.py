"""A picture of the weight versions that each device keeps, from the update that makes one to its last use."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from pipelab.errors import ConfigurationError
from pipelab.schedules.action import Action, actions_of
from pipelab.schedules.updates import versions
from pipelab.timeline import Timeline
from pipelab.view import palette
from pipelab.view.letters import FONT
from pipelab.view.picture import Picture, plain_style

__all__ = ["Life", "lives", "plot_lives"]

_WIDTH, _LEFT, _RIGHT, _TITLE, _FOOT = 756.0, 62.0, 104.0, 26.0, 38.0  # points
_LANE, _BETWEEN = 13.0, 9.0


@dataclass(frozen=True)
class Life:
    """Version ``version`` of stage ``stage``'s weights is kept from ``begin`` to ``end``."""

    stage: int
    version: int
    begin: float
    end: float


def lives(timeline: Timeline) -> list[Life]:
    """All versions of a table with updates, stage by stage.

    A version begins with its update (version 0 with the table). It ends when no micro-batch that used it has a backward
    to come, and no micro-batch will use it. Raises ConfigurationError for a table without updates.
    """
    schedule = timeline.schedule
    if "U" not in schedule.ops:
        raise ConfigurationError(
            f"schedule '{schedule.name}' lists no updates, so there is one version of each stage's weights; give a "
            "timeline of over(build_schedule('pipedream', 4, 4), 3)"
        )
    ends = {action: span.end for span in timeline.spans for action in actions_of(span.slot)}
    made: dict[int, list[float]] = {s: [timeline.start] for s in range(schedule.stages)}
    for span in sorted(timeline.updates, key=lambda span: span.end):
        for action in actions_of(span.slot):
            made[action.stage].append(span.end)
    last_use: dict[tuple[int, int], float] = {}
    for forward, version in versions(schedule).items():
        key = forward.stage, version
        done = ends[Action(forward.stage, "B", forward.microbatch)]
        last_use[key] = max(done, last_use.get(key, 0.0))
    found = []
    for stage, begins in made.items():
        for version, begin in enumerate(begins):
            until = begins[version + 1] if version + 1 < len(begins) else timeline.end
            found.append(Life(stage, version, begin, max(until, last_use.get((stage, version), begin))))
    return found


def most_at_once(found: list[Life], stage: int) -> int:
    """The most versions of a stage that are kept at one moment."""
    own = [life for life in found if life.stage == stage]
    return max(sum(other.begin <= life.begin < other.end for other in own) for life in own)


@plain_style()
def plot_lives(timeline: Timeline, *, title: str = "", note: str = "") -> Picture:
    """Draw the versions of each stage's weights over the time of ``timeline``: one bar a version, one row a device.

    Bars of one device that lie above each other are versions kept at the same time. ``note`` stands below: the clock.
    Raises ConfigurationError for a table without updates.
    """
    found = lives(timeline)
    stages = timeline.schedule.stages
    peaks = [most_at_once(found, s) for s in range(stages)]
    heights = [peak * _LANE + _BETWEEN for peak in peaks]
    high = _TITLE + sum(heights) + _FOOT
    listed = ", ".join(f"device {s} keeps at most {peak}" for s, peak in enumerate(peaks))
    heading = title or f"{timeline.schedule.name}: weight versions over time"
    picture = Picture(_WIDTH / 72, high / 72, f"{heading}. A bar for each weight version; {listed}. {note}".strip())
    sheet = picture.add_axes((0, 0, 1, 1), label="lives")
    sheet.set(xlim=(0, _WIDTH), ylim=(high, 0))
    sheet.set_axis_off()
    _text(sheet, 12, _TITLE / 2, heading, 10.5, weight="bold")
    scale = (_WIDTH - _LEFT - _RIGHT) / (timeline.end - timeline.start or 1.0)
    top = _TITLE
    for s, peak in enumerate(peaks):
        _text(sheet, 12, top + peak * _LANE / 2, f"device {s}", 8.5)
        for life in (life for life in found if life.stage == s and life.end > life.begin):
            left, wide = _LEFT + (life.begin - timeline.start) * scale, (life.end - life.begin) * scale
            y = top + (life.version % peak) * _LANE
            colour = palette.MEMORY if life.version % 2 else palette.MEMORY_LINE
            sheet.add_patch(
                Rectangle((left, y), wide, _LANE - 2, facecolor=colour, edgecolor=palette.INK, linewidth=0.5)
            )
            if wide > 12:
                ink = palette.text_colour(colour)
                _text(sheet, left + wide / 2, y + _LANE / 2 - 1, str(life.version), 7, colour=ink, align="center")
        words = f"at most {peak} version{'s' if peak > 1 else ''}"
        _text(sheet, _WIDTH - _RIGHT + 8, top + peak * _LANE / 2, words, 8.5, weight="bold")
        top += heights[s]
    _text(
        sheet,
        _LEFT,
        top + 6,
        "A bar is one version of a stage's weights, with its number. Time runs to the right.",
        7.5,
    )
    if note:
        _text(sheet, _LEFT, top + 20, note, 7.5, colour=palette.CAPTION)
    return picture


def _text(
    sheet: Axes,
    x: float,
    y: float,
    words: str,
    size: float,
    *,
    weight: str = "normal",
    colour: str = palette.INK,
    align: str = "left",
) -> None:
    sheet.text(
        x, y, words, fontsize=size, fontweight=weight, color=colour, fontfamily=FONT, ha=align, va="center_baseline"
    )
