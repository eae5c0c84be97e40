"""Who watches the steps of a Pipeline: it must neither slow them down nor make one fail."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Protocol

from pipelab.errors import ConfigurationError
from pipelab.runtime.report import StepReport

__all__ = ["Observer", "Watch"]


class Observer(Protocol):
    """What watches the steps of a Pipeline, such as ``pipelab.Monitor``."""

    def observe(self, report: StepReport, seconds: float) -> object:
        """A step is over, and ``step()`` has taken ``seconds``."""
        ...


class Watch:
    """Tells ``observer`` of each step, until it fails. Raises ConfigurationError for what cannot observe."""

    def __init__(self, observer: Observer | None) -> None:
        if isinstance(observer, type):
            given = observer.__name__
            raise ConfigurationError(f"monitor is the class {given}; pass an instance, {given}()")
        if observer is not None and not callable(getattr(observer, "observe", None)):
            given = type(observer).__name__
            raise ConfigurationError(f"monitor must have observe(report, seconds), {given} has not; try Monitor()")
        self._observer = observer

    def step(self, make: Callable[[], StepReport]) -> StepReport:
        """What ``make`` returns; its weights have changed, so the caller gets it whatever the observer does."""
        begun = time.perf_counter()
        report = make()
        if self._observer is not None:
            try:
                self._observer.observe(report, time.perf_counter() - begun)
            except Exception as error:  # noqa: BLE001
                self._observer = None
                told = f"the monitor failed, and watches no more: {type(error).__name__}: {error}"
                warnings.warn(told, stacklevel=3)
        return report
