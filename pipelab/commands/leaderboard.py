"""``pipelab leaderboard``: your schedules beside the catalogue's, on hidden settings."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pipelab.commands.arguments import read_text
from pipelab.errors import ConfigurationError
from pipelab.teaching.design.leaderboard import FOLDER, Leaderboard

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "schedules",
        nargs="*",
        type=Path,
        metavar="CSV",
        help="schedules to enter, p = 4 and m = 8",
    )
    parser.add_argument("--name", metavar="NAME", help="what one schedule is called (default: its file's name)")
    parser.add_argument("--work", type=Path, default=Path("work"), metavar="DIR", help="your folder (default work)")
    parser.add_argument("--json", metavar="FILE", help="write the table as JSON; - for standard output")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw time against memory (.png, .svg, .pdf)")


def run(options: argparse.Namespace) -> int:
    """Enter what was given, then show all; exit status 1 if there are files that cannot be shown."""
    if options.name is not None and len(options.schedules) != 1:
        raise ConfigurationError(f"--name is for one schedule, got {len(options.schedules)}; enter them one by one")
    if not options.work.is_dir():
        raise ConfigurationError(f"{options.work} is not a folder; make lab makes work, or give yours with --work DIR")
    board = Leaderboard(options.work / FOLDER)
    texts = [(read_text(path), options.name or path.stem) for path in options.schedules]
    told = [f"entered as {board.enter(text, name)}" for text, name in texts]
    standings, problems = board.read()
    figures = [
        {"name": s.name, "own": s.own, "time": s.time, "times": s.times, "held": s.held, "messages": s.messages}
        for s in standings
    ]
    text = json.dumps({"bound": board.bound, "standings": figures, "problems": problems}, indent=1)
    if options.json == "-":
        print(text)
    else:
        print("\n".join([*told, str(board)]))
        if options.json:
            Path(options.json).write_text(text + "\n", encoding="utf-8")
    if options.plot is not None:
        board.picture().save(options.plot)
    return 1 if problems else 0
