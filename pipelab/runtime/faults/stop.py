"""Where an interrupt meets the step that runs, and where it must not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from pipelab.runtime.device.channels import StepWire

__all__ = ["Stop", "shielded"]

T = TypeVar("T")


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


def shielded(work: Callable[[threading.Event], T]) -> T:
    """Do ``work`` in a thread, where no KeyboardInterrupt can cut it in two.

    One that comes meanwhile sets the event that ``work`` gets, and is raised once the work is over.
    """
    unwanted = threading.Event()
    done = threading.Event()  # a join that is interrupted may take the thread for ended
    outcome: list[Any] = []

    def body() -> None:
        try:
            outcome[:] = [work(unwanted), None]
        except BaseException as error:  # noqa: BLE001 (it is raised again in the caller's thread)
            outcome[:] = [None, error]
        done.set()

    thread = threading.Thread(target=body, name="pipelab processes", daemon=True)
    started = False
    while not done.is_set():
        try:
            if not started:
                started = True
                thread.start()
            done.wait()
        except KeyboardInterrupt:
            unwanted.set()
    try:
        result, error = outcome
        if unwanted.is_set():
            raise KeyboardInterrupt
        if error is not None:
            raise error
        found: T = result
        return found
    finally:  # an error's traceback holds this frame, which would hold the error
        outcome.clear()
        del error
