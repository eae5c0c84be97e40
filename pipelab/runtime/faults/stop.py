"""Where an interrupt meets the step that runs."""

from __future__ import annotations

import threading

from pipelab.runtime.device.channels import StepWire

__all__ = ["Stop"]


class Stop:
    """Stops the wire of the step that runs; shared by an engine and its rehearsals."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wire: StepWire | None = None
        self._wanted = False

    def interrupt(self) -> None:
        """Stop the step that is running, or the next."""
        with self._lock:
            self._wanted = True
            if self._wire is not None:
                self._wire.interrupt()

    def watch(self, wire: StepWire) -> None:
        """A step begins."""
        with self._lock:
            self._wire = wire
            if self._wanted:
                wire.interrupt()

    def forget(self) -> None:
        """A step is over."""
        with self._lock:
            self._wire, self._wanted = None, False
