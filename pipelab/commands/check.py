"""``pipelab check``: everything that is wrong with a schedule."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelab.commands.arguments import add_schedule, pick_schedule, read_text
from pipelab.schedules import Schedule, TimeTable, check_schedule

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_schedule(parser)
    parser.add_argument("--timed", action="store_true", help="columns of the CSV are time slots, empty cells are idle")


def run(options: argparse.Namespace) -> int:
    """Print one line for each violation; exit status 1 if there are any."""
    if options.timed:
        table: Schedule | TimeTable = TimeTable.from_csv(read_text(Path(options.schedule)))
    else:
        table, _ = pick_schedule(options)
    found = check_schedule(table)
    for violation in found:
        print(violation)
    print("sound" if not found else f"{len(found)} violation(s)")
    return 1 if found else 0
