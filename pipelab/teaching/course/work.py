"""Fills ``work/``, where a learner works: lessons without outputs, exercises; never over what is there."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import nbformat

from pipelab.teaching.course.build import FOLDERS, write_notebook

__all__ = ["INDEX", "LEDGER", "SUFFIX", "fill_work"]

INDEX = "index.ipynb"
LEDGER = "guesses.json"
SUFFIX = "_exercises"
_LINK = re.compile(r"\(\.\./exercises/(\w+)\.ipynb")


def fill_work(root: Path, work: Path) -> tuple[list[Path], list[Path]]:
    """Copy what ``work`` does not have yet from the built course in ``root``.

    Exercises are called ``NN_name_exercises.ipynb`` there, so that open tabs can be told apart; links follow.
    A file that is there stays as it is, whatever has changed in the course. Returns (what was added, what is there
    from an older version of its source).
    """
    added, outdated = [], []
    for kind in ("lesson", "exercises"):
        for source in sorted((root / FOLDERS[kind]).glob("*.ipynb")):
            target = work / FOLDERS[kind] / (source.name if kind == "lesson" else f"{source.stem}{SUFFIX}.ipynb")
            notebook = copy.deepcopy(nbformat.read(source, as_version=4))
            if target.exists():
                if _digest(target) not in (None, notebook.metadata["pipelab"]["source"]):
                    outdated.append(target)
                continue
            for cell in notebook.cells:
                if cell.cell_type == "code":
                    cell.outputs, cell.execution_count = [], None
                else:
                    cell.source = _LINK.sub(rf"(../exercises/\1{SUFFIX}.ipynb", cell.source)
            notebook.cells[0].source += f"\n\n[All lessons and your points so far](../{INDEX})"
            write_notebook(notebook, target)
            added.append(target)
    ledger = work / LEDGER
    if not ledger.exists():
        work.mkdir(parents=True, exist_ok=True)
        ledger.write_text("[]\n", encoding="utf-8")
        added.append(ledger)
    return added, outdated


def _digest(path: Path) -> str | None:
    """Of the source that a learner's notebook was built from; None where it no longer says so."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["metadata"]["pipelab"]["source"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
