"""``Monitor``: watches a Pipeline's steps, at no noticeable cost."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Sequence
from typing import Any

from pipelab.errors import ConfigurationError, whole_number
from pipelab.runtime.report import StepReport
from pipelab.tuning.monitor.sinks import Sink, to_bar, to_csv, to_tensorboard
from pipelab.tuning.monitor.summary import MonitorSummary, Observed, summarise

__all__ = ["Monitor"]


class Monitor:
    """Give it to ``Pipeline(monitor=...)``, and ask ``summary()`` at any time.

    A step is only noted down; figures are worked out when they are asked for, and for ``bar`` (a tqdm bar), ``csv``
    (a file), ``tensorboard`` (a folder) and ``sinks`` (functions that take a MonitorSummary) after ``every`` steps.
    Each of them is about the last ``every`` steps. The last ``keep`` steps stay for pictures. It begins anew with a
    schedule of another name or placement.
    ``tokens``: how many a sequence has, for tokens per second.

    A monitor fails no step: what cannot be written is told in a warning, and left out from then on. Under torchrun the
    one of rank 0 sees all devices (of a mesh, those of replica 0), and the others stay empty. An evaluation is no step.
    """

    def __init__(
        self,
        *,
        every: int = 10,
        keep: int = 50,
        tokens: int | None = None,
        bar: Any = None,
        csv: str | os.PathLike[str] | None = None,
        tensorboard: str | os.PathLike[str] | None = None,
        sinks: Sequence[Sink] = (),
    ) -> None:
        self._every = whole_number("every", "", every)
        if whole_number("keep", "", keep) < self._every:
            raise ConfigurationError(f"keep must be at least every = {every}, got {keep}; try {every}")
        self._tokens, self._count = tokens, 0
        self._steps: deque[Observed] = deque(maxlen=keep)
        self._leader, self._doubt = (-1, 0), -1
        self._sinks = list(sinks)
        for place, make in ((bar, to_bar), (csv, to_csv), (tensorboard, to_tensorboard)):
            if place is not None:
                self._sinks.append(make(place))

    def attach(self, bar: Any) -> None:
        """Show the figures behind a tqdm bar from now on."""
        self._sinks.append(to_bar(bar))

    def observe(self, report: StepReport, seconds: float) -> None:
        """A step is over, and ``step()`` has taken ``seconds``: what a Pipeline calls."""
        if self._steps and _places(self._steps[-1].report) != _places(report):  # rescheduled: other devices or stages
            self._steps.clear()
            self._leader, self._doubt = (-1, 0), -1
        each = zip(report.logs, report.speeds, strict=True) if report.past else ()
        busy = tuple(sum(log.readings.cost) / speed for log, speed in each)  # slot_costs would read all messages too
        self._steps.append(Observed(report, seconds, busy))
        self._count += 1
        if busy:
            self._follow(busy.index(max(busy)), report.step)
        if self._sinks and self._count % self._every == 0:
            summary = self.summary()
            for sink in [*self._sinks]:
                try:
                    sink(summary)
                except Exception as error:  # noqa: BLE001 (it is the user's, and the step has been made)
                    self._sinks.remove(sink)
                    said = f"{type(error).__name__}: {error}"
                    warnings.warn(f"what a monitor told has not been taken, and is not any more ({said})", stacklevel=4)

    def summary(self) -> MonitorSummary:
        """The last ``every`` steps. Raises ConfigurationError before the first."""
        return self._of(self.observed)

    @property
    def observed(self) -> tuple[Observed, ...]:
        """The last ``every`` steps as they were noted down."""
        return tuple(self._steps)[-self._every :]

    def line(self) -> str:
        """The same in one short line; nothing before the first step."""
        return self.summary().line() if self._steps else ""

    def history(self) -> tuple[MonitorSummary, ...]:
        """The last ``keep`` steps, each by itself; ``bottleneck.since`` is as known now."""
        return tuple(self._of([step]) for step in self._steps)

    def panel(self) -> Any:
        """A table for a notebook that follows the steps."""
        from pipelab.tuning.monitor.panel import MonitorPanel

        panel = MonitorPanel(self)
        self._sinks.append(panel.follow)
        return panel

    def _of(self, steps: Sequence[Observed]) -> MonitorSummary:
        if not steps:
            raise ConfigurationError(
                "this monitor has seen no step yet; give it to Pipeline(monitor=...) and call step() (under torchrun "
                "only rank 0's sees any)"
            )
        return summarise(steps, self._leader, self._tokens)

    def _follow(self, busiest: int, step: int) -> None:
        """Who has been the busiest since when; another one must be it twice in a row."""
        if self._leader[0] < 0:
            self._leader = busiest, step
        elif busiest == self._leader[0]:
            self._doubt = -1
        elif self._doubt < 0:
            self._doubt = step
        else:
            self._leader, self._doubt = (busiest, self._doubt), -1


def _places(report: StepReport) -> tuple[str, Any]:
    return report.schedule.name, report.schedule.placement
