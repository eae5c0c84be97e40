"""A widget with *Run it*: one run at a time, with progress and a stop. It never shows a result of other settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import traitlets

from pipelab.errors import ConfigurationError
from pipelab.teaching.running.runs import Run
from pipelab.view.widgets.widget import PipelabWidget

__all__ = ["RunningWidget"]


class RunningWidget(PipelabWidget):
    """What *Run it* needs. ``run_state`` tells the browser state, words, done, total; it is {} before any run."""

    run_state = traitlets.Dict().tag(sync=True)

    _run: Run | None = None

    def __init__(self, kind: str, view: dict[str, Any]) -> None:
        super().__init__(kind, view)

    def _start(self) -> None:
        """Begin the run, or raise ConfigurationError with the reason why not."""
        raise NotImplementedError

    def _commands(self) -> dict[str, Callable[[dict[str, Any]], str | None]]:
        """What the row with *Run it* asks for."""
        return super()._commands() | {"run": lambda message: self._start(), "stop": lambda message: self.stop()}

    @property
    def running(self) -> bool:
        """Whether a run is on its way."""
        return self._run is not None and self._run.running

    def stop(self) -> None:
        """Stop a run that is on its way."""
        if self._run is not None:
            self._run.stop()

    def close(self) -> None:
        """Let go of the widget, and of a run that is on its way."""
        self.stop()
        super().close()

    def _begin(self, work: Callable[[Callable[[str], None]], Any], total: int, finish: Callable[[Any], str]) -> None:
        """Run ``work`` in a thread; ``finish(result)`` takes the result and says it in words.

        Raises ConfigurationError if a run is on its way, here or in another widget of this notebook.
        """
        if self.running:
            raise ConfigurationError("it is already running; stop it first, or wait")

        def tell(run: Run) -> None:
            with self._lock:
                if run is not self._run:  # what it ran is not shown any more
                    return
                now = run.progress
                state, words = now.state, now.words
                if state == "done":
                    try:
                        words = finish(run.result)
                    except Exception as error:  # noqa: BLE001 (or the page would say "running" forever)
                        state, words = (
                            "failed",
                            f"It ran, but cannot be shown: {type(error).__name__}: {error}",
                        )
                self.run_state = {"state": state, "words": words, "done": now.done, "total": now.total}

        with self._lock:
            before, self._run = self._run, Run(work, total, tell)
            try:
                self._run.start()
            except ConfigurationError:
                self._run = before
                raise

    def _leave_run(self, why: str) -> None:
        """What is shown has changed: a run that is on its way is stopped, and ``why`` is said."""
        stopped = self.running
        self.stop()
        self._run = None
        self.run_state = {"state": "stopped", "words": why} if stopped else {}

    def _wait(self) -> None:
        """Wait for the run. Raises ConfigurationError with its words if it failed."""
        run = self._run
        if run is not None:
            try:
                run.wait()
            except BaseException:  # interrupted: nothing is left running
                run.stop()
                raise
            if run.progress.state == "failed":
                raise ConfigurationError(run.progress.words)
