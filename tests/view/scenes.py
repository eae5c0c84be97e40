"""Timelines to draw, and eyes for what was drawn."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox

from pipelab.errors import ConfigurationError
from pipelab.schedules import Action, Schedule, build_schedule
from pipelab.schedules.action import actions_of
from pipelab.schedules.catalogue import recipes
from pipelab.simulation import Costs, SlotCosts, simulate
from pipelab.timeline import Span
from pipelab.view import plot_timeline

SPLIT = Schedule.from_csv(
    """0F0,0F1,0I0,0F2,0I1,0W0,0I2,0W1,0W2
1F0,1I0,1F1,1I1,1W0,1F2,1I2,1W1,1W2
""",
    name="split",
)
FUSED = Schedule.from_csv(
    """0F0,0F1,0F2,(0F3;0B0)OVERLAP_F_B,0B1,0B2,0B3
1F0,1F1,(1F2;1B0)OVERLAP_F_B,(1F3;1B1)OVERLAP_F_B,1B2,1B3
""",
    name="fused",
)
UPDATES = Schedule.from_csv("0F0,0B0,0U0,0F1,0B1,0U1\n", name="flushless")


def predicted(name, p, m, v=None, *, batch=None, recompute=False, **costs):
    return simulate(build_schedule(name, p, m, v, recompute=recompute), Costs(**costs), batch=batch)


def measured(schedule, *, seed=0, updates=True, share=0.01):
    """Noisy seconds, with an update behind the makespan."""
    chance = random.Random(seed)
    slots = tuple(
        tuple(share * len(actions_of(slot)) * schedule.share * (1 + chance.random()) for slot in program)
        for program in schedule.programs
    )
    timeline = replace(
        simulate(schedule, SlotCosts(slots), clock="device", batch=8 * schedule.microbatches), note="median of 5 steps"
    )
    if not updates:
        return timeline
    spans = (
        Span(
            r,
            len(program),
            tuple(Action(s, "U", 0) for s in schedule.stages_on(r)),
            timeline.end,
            timeline.end + 0.004 * (r + 1),
        )
        for r, program in enumerate(schedule.programs)
    )
    return replace(timeline, updates=tuple(spans))


def every(ps, ms):
    """All schedules that can be built by name."""
    for name in recipes():
        for p in ps:
            for m in ms:
                try:
                    yield build_schedule(name, p, m)
                except ConfigurationError:
                    continue


def scenes():
    """One of each kind that pictures have to cope with."""
    yield "1f1b", predicted("1f1b", 4, 4)
    yield "1f1b bytes", predicted("1f1b", 4, 8, batch=64, activation_bytes=19e6)
    yield "gpipe recompute", predicted("gpipe", 4, 4, recompute=True, backward=2)
    yield "naive", predicted("naive", 4, 4, batch=64)
    yield "interleaved", predicted("interleaved", 4, 4, 2)
    yield "interleaved wide", predicted("interleaved", 8, 32, 2)
    yield "many chunks", predicted("interleaved", 4, 4, 8)
    yield "tall", predicted("1f1b", 16, 64)
    yield "tall chunks", predicted("interleaved", 16, 16, 2)
    yield "small", predicted("1f1b", 2, 1)
    yield "one device", predicted("1f1b", 1, 3)
    yield "latency", predicted("1f1b", 4, 8, backward=2, latency=0.5)
    yield "split", simulate(SPLIT)
    yield "fused", simulate(FUSED, Costs(fused={"FB": 0.75}))
    yield "flushless", simulate(UPDATES, Costs(update=0.5), check=False)
    yield "measured", measured(build_schedule("1f1b", 4, 8))
    yield "measured chunks", measured(build_schedule("interleaved", 4, 8, 2), seed=3)


SCENES = dict(scenes())


@cache
def drawn(name, width=None):
    """The picture of a scene, drawn once for all tests that only look at it."""
    return plot_timeline(SCENES[name], width=width)


def axes_of(picture, label):
    return next(axes for axes in picture.axes if axes.get_label() == label)


def polygons(picture, gid):
    """Corners of the shapes drawn under a name: x in shown time, y in points from the top of the rows."""
    return [
        path.vertices[:-1]
        for shapes in axes_of(picture, "time").collections
        if shapes.get_gid() == gid
        for path in shapes.get_paths()
    ]


def boxes(picture, gid):
    """(left, right, top, bottom) of rectangles."""
    return [
        (corners[:, 0].min(), corners[:, 0].max(), corners[:, 1].min(), corners[:, 1].max())
        for corners in polygons(picture, gid)
    ]


def ticks(picture):
    """The labels of the time axis, its name among them."""
    picture.draw_without_rendering()
    axes = axes_of(picture, "time")
    longest = axes.get_xlim()[1] * (1 + 1e-9)
    return [axes.xaxis.label, *(tick for tick in axes.get_xticklabels() if 0 <= tick.get_position()[0] <= longest)]


def render(picture):
    """Draw it as a page shows it, without packing it into a file."""
    FigureCanvasAgg(picture).draw()


def assert_texts_have_room(picture):
    """Nothing is cut off by the picture's edge, and no texts beside the blocks overlap."""
    beside = [*ticks(picture), *(text for text in texts(picture) if text.get_gid() != "label")]
    found = list(zip(beside, extents(picture, beside), strict=True))
    for artist, box in found:
        assert inside(box, picture.bbox), artist.get_text()
    x0, y0, x1, y1 = np.array([box.extents for _, box in found]).T
    slack = 1.0
    apart = (x1[:, None] <= x0 + slack) | (y1[:, None] <= y0 + slack)
    for a, b in np.argwhere(~(apart | apart.T)):
        assert a == b, (beside[a].get_text(), beside[b].get_text())


def texts(picture, gid=None):
    return [
        text
        for axes in picture.axes
        for text in axes.texts
        if (gid is None or text.get_gid() == gid) and text.get_text()
    ]


def extents(picture, artists):
    """Where artists stand in the picture, in pixels."""
    renderer = FigureCanvasAgg(picture).get_renderer()
    return [artist.get_window_extent(renderer) for artist in artists]


def pixels(picture, box):
    """A (left, right, top, bottom) of the rows in pixels."""
    corners = np.array([(box[0], box[3]), (box[1], box[2])])
    (x0, y0), (x1, y1) = axes_of(picture, "time").transData.transform(corners)
    return Bbox.from_extents(x0, y0, x1, y1)


def inside(inner, outer, slack=0.5):
    return (
        inner.x0 >= outer.x0 - slack
        and inner.x1 <= outer.x1 + slack
        and inner.y0 >= outer.y0 - slack
        and inner.y1 <= outer.y1 + slack
    )
