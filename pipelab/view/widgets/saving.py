"""Names of files that are saved from a page: beside the notebook, and never over another."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["unused"]


def unused(name: str, folder: Path | None = None) -> Path:
    """``name`` in ``folder`` (default: the notebook's), with a number before its suffix where it is taken.

    Of ``name`` only what belongs into a file's name is used.
    """
    name = re.sub(r"[^\w.+=-]+", "-", name).lstrip(".-") or "saved"
    path = (Path.cwd() if folder is None else folder) / name
    number = 2
    while path.exists():
        path = path.with_name(f"{Path(name).stem}-{number}{Path(name).suffix}")
        number += 1
    return path
