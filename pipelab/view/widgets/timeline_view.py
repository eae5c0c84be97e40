"""A timeline that can be asked: play it, step through it, zoom, point at a block or at idle time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelab.timeline import Timeline
from pipelab.view.picture import Picture
from pipelab.view.timeline import plot_timeline
from pipelab.view.widgets.animation import Animation, plot_animation
from pipelab.view.widgets.saving import MOVING, unknown, unused
from pipelab.view.widgets.scene import scene
from pipelab.view.widgets.widget import PipelabWidget

__all__ = ["TimelineView"]

_WIDTH = 8.5  # inches, of what moves: frames take room


class TimelineView(PipelabWidget):
    """``timeline`` as a widget, predicted or measured.

    Play it, or step through it and see what is ready. Point at a block, or move to it with the arrow keys, and read
    what it waited for and what waits for it. Point at idle time and read why. The critical path is the chain of actions
    that determines the makespan. A table below holds the same in words. ``critical`` shows that path from the start.
    ``play`` begins to play once it is seen. Without ``phases`` their strip is left out. ``lanes`` shows from the start
    what each device sends and receives.

    It carries ``plot_timeline``'s picture in the same output for pages without widgets; with ``play`` an animation.

    >>> TimelineView(simulate(build_schedule("1f1b", devices=4, microbatches=8)))
    """

    def __init__(
        self,
        timeline: Timeline,
        *,
        title: str | None = None,
        critical: bool = False,
        play: bool = False,
        phases: bool = True,
        lanes: bool = False,
    ) -> None:
        self.timeline, self._play = timeline, play
        phases = phases and not timeline.words.stages
        self._drawn: dict[str, Any] = {"title": title, "phases": phases, "lanes": lanes}
        view = {"scenes": [scene(timeline, title=title)], "critical": critical, "play": play}
        super().__init__("timeline", view | {"phases": phases, "lanes": lanes})

    def __repr__(self) -> str:
        return f"TimelineView({self.timeline!r})"

    def picture(self) -> Picture:
        """The same timeline as a static picture."""
        return plot_timeline(self.timeline, **self._drawn)

    def animation(self) -> Animation:
        """The same timeline as an animated picture."""
        return plot_animation(self.timeline, **self._drawn, width=_WIDTH)

    def save(self, kind: str = "picture") -> Path:
        """Write it beside the notebook: "picture" (PNG), "svg" or "gif". Nothing is overwritten. Returns the path."""
        if kind not in MOVING:
            raise unknown(kind, MOVING)
        shown = self.animation() if kind == "gif" else self.picture()
        return shown.save(unused(f"{self.timeline.schedule.name}{MOVING[kind]}"))

    def _without_widgets(self) -> Picture | Animation:
        return self.animation() if self._play else self.picture()
