"""A worker's own process: does the jobs that it is sent, one at a time, until the line is closed. Light to start."""

from __future__ import annotations

import pickle
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle

__all__ = ["main", "timed"]


def timed(clock: Callable[[], float], work: Callable[..., Any], given: Sequence[Any]) -> tuple[Any, float]:
    """The result of ``work``, and how long it took by ``clock``."""
    begin = clock()
    result = work(*given)
    return result, clock() - begin


def main(number: int) -> None:
    """Serve the line at file ``number``: first the functions of stages, then (stage, arguments) of a job each time."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the caller's to handle
    line = Connection(number)
    try:
        works = _answer(
            line, lambda: ({s: pickle.loads(data) for s, data in pickle.loads(line.recv_bytes()).items()}, 0.0)
        )
        while works is not None:
            stage, given = pickle.loads(line.recv_bytes())
            _answer(line, lambda: timed(time.thread_time, works[stage], given), tell=True)  # noqa: B023
    except (EOFError, OSError):
        pass


def _answer(line: Connection, work: Callable[[], tuple[Any, float]], *, tell: bool = False) -> Any:
    """Send (result, seconds), without the result unless ``tell``; or (error, its name, its traceback)."""
    try:
        result, seconds = work()
        data = cloudpickle.dumps((result if tell else None, seconds))
    except BaseException as error:  # noqa: BLE001 (it is raised again in the caller's process)
        trace = "".join(traceback.format_exception(error))
        try:
            data = cloudpickle.dumps((error, type(error).__name__, trace))
            pickle.loads(data)
        except Exception:  # noqa: BLE001 (anything may come out of a foreign exception's own pickling)
            data = pickle.dumps((RuntimeError(str(error)), type(error).__name__, trace))
        line.send_bytes(data)
        return None
    line.send_bytes(data)
    return result
