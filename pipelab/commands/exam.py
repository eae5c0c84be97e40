"""``pipelab exam``: a mock examination with numbers drawn from a seed, and its key."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path

from pipelab.teaching.course.exam.drawn import exam_name
from pipelab.teaching.course.exam.paper import paper, write_exam

__all__ = ["add_arguments", "run"]

ABOUT = """
Questions come from all lessons, with other numbers each time. The same seed gives the same examination. Grade it with
pipelab grade, like any exercises.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.epilog = ABOUT
    parser.add_argument("--seed", type=int, metavar="N", help="draw this examination (default: a new one)")
    parser.add_argument(
        "--work", type=Path, default=Path("work"), metavar="DIR", help="where to write it, default work"
    )
    parser.add_argument("--key", type=Path, metavar="FILE", help="write only the answers with their reasons, to FILE")


def run(options: argparse.Namespace) -> int:
    """Draw and write."""
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    path = options.key or options.work / f"{exam_name(seed)}.ipynb"
    about = paper(seed)
    write_exam(seed, path, solved=options.key is not None)
    print(f"{path}: {about.title}, {len(about.exercises)} questions, about {about.minutes} minutes")
    if options.key is None:
        print(f"then: pipelab grade {path}")
    return 0
