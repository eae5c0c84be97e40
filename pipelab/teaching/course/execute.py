"""Executes a built notebook, and keeps the outputs of one whose source has not changed."""

from __future__ import annotations

import copy
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

__all__ = ["executed", "kept"]

TIMEOUT = 300  # seconds for a cell; lessons take far less
_BOUND = {"application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json"}


def kept(built: NotebookNode, path: Path) -> NotebookNode | None:
    """``built`` with the outputs in ``path``, if these came from the same source and the same code.

    Words that the builder itself writes (a page's head and foot) change no output.
    """
    if not path.exists():
        return None
    old = nbformat.read(path, as_version=4)
    if old.metadata.get("pipelab") != built.metadata["pipelab"]:
        return None
    filled = copy.deepcopy(built)
    now, before = _codes(filled), _codes(old)
    if [cell.source for cell in now] != [cell.source for cell in before]:
        return None
    for cell, ran in zip(now, before, strict=True):
        cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
    return filled


def executed(built: NotebookNode, folder: Path) -> NotebookNode:
    """``built`` with its outputs, run in ``folder``. Raises nbclient's CellExecutionError if a cell raises."""
    try:
        run = _run(built, folder)
    except RuntimeError:  # no kernel came up: two that start at once may choose the same port
        run = _run(built, folder)
    filled = copy.deepcopy(built)
    for cell, ran in zip(filled.cells, run.cells, strict=True):
        if cell.cell_type == "code":
            cell.execution_count = ran.execution_count
            cell.outputs = [_settled(output) for output in ran.outputs]
    return filled


def _run(built: NotebookNode, folder: Path) -> NotebookNode:
    run = copy.deepcopy(built)
    NotebookClient(
        run,
        timeout=TIMEOUT,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
        record_timing=False,
    ).execute()
    return run


def _settled(output: NotebookNode) -> NotebookNode:
    """Without what is bound to the kernel that made it: a widget's static form stays."""
    if "data" in output:
        for kind in _BOUND & set(output["data"]):
            del output["data"][kind]
    return output


def _codes(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]
