"""What a learner drew outlives the kernel: grids kept as CSV files beside the notebook, in ``drawings/``."""

from __future__ import annotations

import math
from pathlib import Path

from pipelab.errors import PipelabError
from pipelab.schedules.action import Action
from pipelab.teaching.board.board import Board
from pipelab.teaching.board.rules import Rules
from pipelab.view.widgets.saving import unused

__all__ = ["FOLDER", "drawing_name", "keep_drawing", "kept_drawing"]

FOLDER = "drawings"


def keep_drawing(board: Board, name: str) -> None:
    """Write ``board`` down under ``name``, over what was kept there. Raises OSError where nothing can be written."""
    path = Path.cwd() / FOLDER / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text(board.to_csv(), encoding="utf-8")


def kept_drawing(name: str, rules: Rules) -> tuple[Board, str]:
    """The grid that was kept under ``name``, or an empty one; and a sentence if there was one that does not fit here.

    A file that cannot be read is renamed, not thrown away.
    """
    path = Path.cwd() / FOLDER / f"{name}.csv"
    try:
        return Board.from_csv(path.read_text(encoding="utf-8"), rules), ""
    except (FileNotFoundError, NotADirectoryError):
        return Board.empty(rules), ""
    except (PipelabError, OSError, ValueError):
        kept = f"The file {FOLDER}/{path.name} does not hold a grid with these rules"
        try:
            aside = path.replace(unused(f"{name}.unreadable", path.parent))
        except OSError:
            return Board.empty(rules), f"{kept}, so this board is empty."
        return Board.empty(rules), f"{kept}. It was renamed to {aside.name}, and this board is empty."


def drawing_name(rules: Rules) -> str:
    """The name of a drawing's file: boards with other rules do not share one."""
    parts = ["drawing", f"p{rules.devices}", f"m{rules.microbatches}"]
    parts += [f"v{rules.chunks}"] if rules.chunks > 1 else []
    parts += [rules.layout] if rules.layout != "loop" else []
    takes = [f"{op.lower()}{rules.duration(Action(0, op, 0))}" for op in rules.ops]
    parts += takes if takes != ["f1", "b1"] else []
    limits = ["any" if limit == math.inf else f"{limit:g}" for limit in rules.limits]
    limits = limits[:1] if len(set(limits)) == 1 else limits
    return "-".join(parts + (["limit", *limits] if limits != ["any"] else []))
