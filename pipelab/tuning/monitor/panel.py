"""A monitor's figures in a notebook, as a table that is written anew in its place while steps run."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import astuple, dataclass
from html import escape
from pathlib import Path
from typing import Protocol

from pipelab.quantities import format_bytes
from pipelab.tuning.monitor.picture import plot_monitor
from pipelab.tuning.monitor.summary import WORDS, MonitorSummary
from pipelab.view.palette import OPS
from pipelab.view.picture import Picture, bundled
from pipelab.view.widgets.saving import PICTURES, unknown, unused
from pipelab.view.widgets.widget import PipelabWidget

__all__ = ["MonitorPanel"]

SECONDS = 0.5
"""Least time between two changes."""
_WAITING = "no step yet"


class _Watched(Protocol):
    def summary(self) -> MonitorSummary: ...
    def history(self) -> tuple[MonitorSummary, ...]: ...


class MonitorPanel(PipelabWidget):
    """A table of ``monitor``'s figures; ``follow(summary)`` shows newer ones, at most twice a second."""

    def __init__(self, monitor: _Watched) -> None:
        self._monitor = monitor
        self._newest: MonitorSummary | None = None
        self._timer: threading.Timer | None = None
        super().__init__("monitor", {"html": self._still().html})

    def follow(self, summary: MonitorSummary) -> None:
        """Show it: now, or half a second after the last change."""
        with self._lock:
            self._newest = summary
            if self._timer is None:
                self._draw()

    def _draw(self) -> None:
        with self._lock:
            self._timer = None
            if self._newest is None:
                return
            self.show({"html": _table(self._newest)})
            self._newest, self._timer = None, threading.Timer(SECONDS, self._draw)
            self._timer.daemon = True
            self._timer.start()

    def picture(self) -> Picture:
        """The steps so far, as a picture."""
        return plot_monitor(self._monitor)

    def save(self, kind: str = "picture") -> Path:
        """Write that picture beside the notebook: "picture" (PNG) or "svg"."""
        if kind not in PICTURES:
            raise unknown(kind, PICTURES)
        return self.picture().save(unused(f"monitor{PICTURES[kind]}"))

    def _without_widgets(self) -> _Still:
        return self._still()

    def _still(self) -> _Still:
        if not self._monitor.history():
            return _Still(f"<p>{_WAITING}</p>", _WAITING)
        summary = self._monitor.summary()
        return _Still(_table(summary), str(summary))


@dataclass(frozen=True)
class _Still:
    """A table that does not change."""

    html: str
    text: str

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        return bundled({"text/html": self.html, "text/plain": self.text}, include, exclude)


def _table(summary: MonitorSummary) -> str:
    lines = str(summary).splitlines()
    rows = [
        f"<tr><th>device {r}</th><td>{_bar(part, OPS['F'])}</td><td>{part:.0%} busy</td>"
        f"<td>{format_bytes(held.activations)}</td><td>{format_bytes(held.model_states.total)}</td></tr>"
        for r, (part, held) in enumerate(zip(summary.utilisation, summary.memory, strict=False))
    ]
    if summary.causes is not None:
        rows += [
            f"<tr><th>{words}</th><td>{_bar(part, OPS['B'])}</td><td>{part:.1%} of the time idle</td><td></td><td></td>"
            "</tr>"
            for words, part in zip(WORDS.values(), astuple(summary.causes), strict=True)
            if abs(part) >= 0.0005
        ]
    head = "<tr><th></th><th></th><th></th><th>activations, peak</th><th>model states</th></tr>"
    told = [line for line in lines if not line.startswith(("utilisation", "bubble", "memory"))]
    return f"<table>{head}{''.join(rows)}</table>" + "".join(f"<p>{escape(line)}</p>" for line in told)


def _bar(part: float, colour: str) -> str:
    width = round(200 * min(max(part, 0.0), 1.0))
    return f'<div style="width:200px"><div style="width:{width}px;height:0.8em;background:{colour}"></div></div>'
