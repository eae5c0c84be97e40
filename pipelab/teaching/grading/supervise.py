"""Runs a command, and when it has ended or SIGTERM comes ends everything that it has started.

On Linux orphans are adopted, so that a process that has left its session and emptied its environment is found as well.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

import psutil

__all__ = ["supervise"]

_SET_CHILD_SUBREAPER = 36  # prctl(2)


def supervise(command: Sequence[str]) -> int:
    """The exit status of ``command``; nothing that it started is left."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(1)

    signal.signal(signal.SIGTERM, stop)
    try:
        return subprocess.Popen(command).wait()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end_descendants()


def _end_descendants() -> None:
    for _ in range(10):
        left = [child for child in psutil.Process().children(recursive=True) if _runs(child)]
        if not left:
            return
        for child in left:
            try:
                child.kill()
            except psutil.Error:
                continue
        psutil.wait_procs(left, timeout=1)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


if __name__ == "__main__":
    sys.exit(supervise(sys.argv[1:]))
