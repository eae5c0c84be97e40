"""Processes that share a GPU take turns: which one it is, and a lock between them."""

from __future__ import annotations

import fcntl
import os
import platform
from pathlib import Path

import torch

__all__ = ["FileLock", "gpu_id"]


def gpu_id(place: torch.device) -> str | None:
    """Which GPU it is, whatever it is called in this process; None for a CPU."""
    if place.type != "cuda":
        return None
    properties = torch.cuda.get_device_properties(place)
    return str(getattr(properties, "uuid", f"{platform.node()} {place}"))


class FileLock:
    """A lock between processes of one host."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)

    def acquire(self) -> None:
        """Wait for it."""
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def release(self) -> None:
        """Let the next one in."""
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Remove it."""
        os.close(self._file)
        self._path.unlink(missing_ok=True)
