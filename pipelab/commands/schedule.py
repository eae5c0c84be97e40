"""``pipelab schedule``: a schedule's timetable."""

from __future__ import annotations

import argparse

from pipelab.commands.arguments import add_schedule, pick_schedule

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_schedule(parser)
    parser.add_argument("--format", choices=["grid", "csv"], default="grid", help="grid for people, csv for programs")
    parser.add_argument(
        "--dialect", choices=["pipelab", "torch"], default="pipelab", help="torch: refuse what PyTorch cannot read"
    )


def run(options: argparse.Namespace) -> int:
    """Print it."""
    schedule, _ = pick_schedule(options)
    print(schedule.to_csv(options.dialect) if options.format == "csv" else schedule.to_grid(), end="")
    return 0
