"""Files that are saved from a page: beside the notebook, and never over another."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pipelab.errors import ConfigurationError

__all__ = ["MOVING", "PICTURES", "unknown", "unused"]

PICTURES = {"picture": ".png", "svg": ".svg"}
"""What is saved as a still picture, and the suffix that it gets."""
MOVING = PICTURES | {"gif": ".gif"}
"""The same of what can be played."""


def unknown(kind: str, kinds: Iterable[str]) -> ConfigurationError:
    """What is said of a kind that cannot be saved."""
    *first, last = kinds
    return ConfigurationError(f"'{kind}' cannot be saved; save {', '.join(first)} and {last}")


def unused(name: str, folder: Path | None = None, same: bytes | None = None) -> Path:
    """``name`` in ``folder`` (default: the notebook's), with a number before its suffix where it is taken.

    Of ``name`` only what belongs into a file's name is used. A file that holds ``same`` already does not take it.
    """
    name = re.sub(r"[^\w.+=-]+", "-", name).lstrip(".-") or "saved"
    path = (Path.cwd() if folder is None else folder) / name
    number = 2
    while path.exists() and not (same is not None and path.is_file() and path.read_bytes() == same):
        path = path.with_name(f"{Path(name).stem}-{number}{Path(name).suffix}")
        number += 1
    return path
