"""The command line: ``pipelab`` and ``python -m pipelab``. Each command is a module of ``pipelab/commands/``."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Sequence

from pipelab.errors import PipelabError

COMMANDS = {
    "schedule": "print a schedule's timetable",
    "check": "list everything that is wrong with a schedule",
    "simulate": "predict when everything runs",
    "search": "search for the schedule that takes least time, for given costs and memory",
    "run": "really run the model under a schedule, and measure",
    "demo": "the worked example under all schedules, then some training",
    "tune": "find the schedule and m that train fastest within memory",
    "shapes": "find how to share a model among the devices of a cluster: dp, pp and tp",
    "leaderboard": "your own schedules beside the catalogue's, on hidden settings; enters CSV files",
    "grade": "grade notebooks: points per exercise, and why",
    "exam": "draw a mock examination, or its key",
    "course": "build the course's notebooks from their sources, fill work/, or check the sources",
    "doctor": "show what this machine has, and how the course uses it",
}
"""Each command, and what it does."""

EXAMPLES = """
examples:
  pipelab schedule 1f1b -p 4 -m 8               print the timetable, one row per device
  pipelab simulate gpipe -p 4 -m 8 --backward 2 --why
                                                predict makespan, bubble and micro-batches in flight; explain why
                                                devices idle
  pipelab run 1f1b -p 4 -m 4 --plot run.png     run the 48-layer model, check its gradients, draw prediction and
                                                measurement
  pipelab run mine.csv                          run your own schedule, one CSV row of actions per device
  pipelab search -p 4 -m 8 -v 2                 find the order of F, I and W that takes least time
  pipelab check mine.csv                        list everything that is wrong with it
  pipelab leaderboard mine.csv                  enter it on your leaderboard, beside the catalogue
  pipelab tune --memory-limit 60MB              find the fastest schedule and m within the limit: predict, then measure
  pipelab shapes llama3-405b                    the best dp, pp and tp for a published run, and why others lose
  pipelab grade exercises/02_gpipe.ipynb        points for each exercise, and what to read next
  pipelab exam --seed 17                        a mock examination in work/, with numbers of its own
  pipelab doctor                                show what this machine has, and how the course uses it

p devices hold the stages of the model. A batch is cut into m micro-batches. 3F0 is an action: stage, op, micro-batch.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (2: what was asked for cannot be done)."""
    given = sys.argv[1:] if argv is None else argv
    parser = _parser(given)
    if not given:
        parser.print_help()
        return 2
    options = parser.parse_args(given)
    # nbformat loads jsonschema, which would spend a second on the grammar of a format that no notebook has.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except PipelabError as error:
        _complain(error)
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        print(f"pipelab: {error.filename or ''}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pipelab: stopped", file=sys.stderr)
        return 130


def _complain(error: PipelabError) -> None:
    """One sentence. Of a group's ranks, those speak that know something which rank 0 does not."""
    rank = os.environ.get("RANK", "0") if "WORLD_SIZE" in os.environ else "0"
    if rank == "0":
        print(f"pipelab: {error}", file=sys.stderr)
        return
    if getattr(error, "only_here", False):
        print(f"pipelab, rank {rank}: {error}", file=sys.stderr)
    time.sleep(1)  # torchrun ends all ranks when the first has ended: let rank 0 speak


def _parser(given: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pipelab",
        description="Learn pipeline parallelism by running it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = next((word for word in given if not word.startswith("-")), None)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == chosen:  # the others are not loaded
            module = importlib.import_module(f"pipelab.commands.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
