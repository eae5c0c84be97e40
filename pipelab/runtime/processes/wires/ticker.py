"""Something that is done again and again beside the work."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable

__all__ = ["Ticker"]


class Ticker:
    """Calls ``work`` every ``seconds`` in a thread, until it returns True or the ticker is stopped.

    It stops before Python ends: a thread that comes back from C++ after that takes the process down.
    """

    def __init__(self, seconds: float, work: Callable[[], bool | None], name: str) -> None:
        self._over = threading.Event()

        def run() -> None:
            while not self._over.wait(seconds):
                if work():
                    return

        self._thread = threading.Thread(target=run, name=f"pipelab {name}", daemon=True)
        self._thread.start()
        atexit.register(self.stop)

    @property
    def is_alive(self) -> bool:
        """Whether it still ticks."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """No more of it."""
        atexit.unregister(self.stop)
        self._over.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(2.0)
