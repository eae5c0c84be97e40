"""A timeline that can be asked: step through it, zoom, point at a block or at idle time."""

from __future__ import annotations

from pipelab.timeline import Timeline
from pipelab.view.picture import Picture
from pipelab.view.timeline import plot_timeline
from pipelab.view.widgets.scene import scene
from pipelab.view.widgets.widget import PipelabWidget

__all__ = ["TimelineView"]


class TimelineView(PipelabWidget):
    """``timeline`` as a widget, predicted or measured.

    Step through it and see what is ready; zoom; point at a block, or move to it with the arrow keys, and read what it
    waited for and what waits for it; point at idle time and read why; show the critical path, the chain of actions
    that fixes the makespan. A table below it holds the same in words. ``critical`` shows that path from the start.

    It carries ``plot_timeline``'s picture in the same output for pages without widgets.

    >>> TimelineView(simulate(build_schedule("1f1b", devices=4, microbatches=8)))
    """

    def __init__(
        self, timeline: Timeline, *, title: str | None = None, critical: bool = False, phases: bool = True
    ) -> None:
        self.timeline, self._title, self._phases = timeline, title, phases
        super().__init__("timeline", {"scenes": [scene(timeline, title=title)], "critical": critical})

    def __repr__(self) -> str:
        return f"TimelineView({self.timeline!r})"

    def picture(self) -> Picture:
        """The same timeline as a static picture."""
        return plot_timeline(self.timeline, title=self._title, phases=self._phases)
