"""Work that takes seconds, started from a page: in its own thread, with progress and a stop, one at a time.

The kernel stays free. Nothing is left running: a stop ends the work at its next sign of progress, and the thread ends
with the kernel.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipelab.errors import ConfigurationError, PipelabError

__all__ = ["Progress", "Run", "Stopped"]


class Stopped(PipelabError):
    """The run was asked to stop."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands. ``state`` is "running", "done", "stopped" or "failed"; ``words`` say what it does, or did."""

    state: str
    words: str
    done: int = 0
    total: int = 0


class Run:
    """``work(progress)`` in a thread. It calls ``progress(words)`` before each of its ``total`` pieces.

    ``tell(run)`` is called, in that thread, whenever ``run.progress`` has changed; ``result`` is what ``work`` gave.
    """

    _one = threading.Lock()
    _now: Run | None = None

    def __init__(self, work: Callable[[Callable[[str], None]], Any], total: int, tell: Callable[[Run], None]) -> None:
        self._work, self._tell = work, tell
        self._stop = threading.Event()
        self.result: Any = None
        self.progress = Progress("running", "starting", 0, total)
        self._thread = threading.Thread(target=self._body, name="pipelab run", daemon=True)

    def start(self) -> Run:
        """Begin. Raises ConfigurationError if another run is going in this process."""
        if not Run._one.acquire(blocking=False):
            if Run._now is not None:
                Run._now.stop()  # its own Stop may be gone with its cell's output
            raise ConfigurationError(
                "another run is still going in this notebook. It is being stopped; press again in a moment"
            )
        Run._now = self
        try:
            self._tell(self)
            self._thread.start()
        except BaseException:
            Run._one.release()
            raise
        return self

    def stop(self) -> None:
        """End it at its next sign of progress."""
        self._stop.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is over; False if it is not after ``timeout`` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def running(self) -> bool:
        """Whether it is on its way."""
        return self.progress.state == "running"

    def _step(self, words: str) -> None:
        if self._stop.is_set():
            raise Stopped("stopped")
        now = self.progress
        self.progress = Progress("running", words, min(now.done + 1, now.total), now.total)
        self._tell(self)

    def _body(self) -> None:
        try:
            self.result = self._work(self._step)
            ended = Progress("done", "", self.progress.total, self.progress.total)
        except Stopped:
            ended = Progress("stopped", "Stopped.")
        except PipelabError as error:
            ended = Progress("failed", str(error))
        except Exception as error:  # noqa: BLE001 (a page shows a sentence)
            ended = Progress("failed", f"The run failed: {type(error).__name__}: {error}")
        finally:
            Run._one.release()
        self.progress = ended
        self._tell(self)
