"""``pipelab grade``: grades notebooks, and says what each learner should read next."""

from __future__ import annotations

import argparse
import difflib
import json
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pipelab.errors import ConfigurationError

__all__ = ["add_arguments", "run"]

ABOUT = """
nbval runs each exercise in its own kernel, in a temporary folder. Another process judges the results, which are plain
data. Notebooks are not changed. Exit status: 0 all points, 1 some are missing, 2 nothing could be graded.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.epilog = ABOUT
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK", help="a notebook, or a folder of them")
    parser.add_argument("--json", metavar="FILE", help="write the report as JSON; - for standard output")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="one row per part of each exercise")
    parser.add_argument("--totals", type=Path, metavar="FILE", help="CSV with one row per learner, for a gradebook")
    parser.add_argument("--feedback", type=Path, metavar="DIR", help="one HTML page per learner")
    parser.add_argument("--index", type=Path, metavar="DIR", help="write the points on the index page of a work folder")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="JUnit XML, for a CI service")
    parser.add_argument("--roster", type=Path, metavar="FILE", help="CSV with columns learner, name: the class")
    parser.add_argument(
        "--override", type=Path, metavar="FILE", help="CSV with columns learner, exercise, points, reason"
    )
    parser.add_argument("--course", type=Path, metavar="DIR", help="the sources (default: course/ of the repository)")
    parser.add_argument("--jobs", type=int, metavar="N", help="exercises at a time (default: as many as cores)")
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="seconds that one exercise may take (default 60)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="draw the same cases as a report with this seed")


def run(options: argparse.Namespace) -> int:
    """Grade and write what was asked for."""
    try:
        import nbformat  # noqa: F401
        import nbval  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(f"grading needs {error.name}: pip install 'pipelab[lab]'") from None
    from pipelab.commands.course import index
    from pipelab.teaching.grading.grader import grade
    from pipelab.teaching.grading.outputs import as_csv, as_junit, as_text, as_totals, clean, write_feedback
    from pipelab.teaching.grading.roster import (
        apply_overrides,
        apply_roster,
        check_overrides,
        read_overrides,
        read_roster,
    )

    if options.jobs is not None and options.jobs < 1:
        raise ConfigurationError(f"--jobs must be at least 1, got {options.jobs}")
    if not 0 < options.timeout < math.inf:
        raise ConfigurationError(f"--timeout must be positive, got {options.timeout:g}; try 60")
    files = [Path(options.json)] if options.json not in (None, "-") else []
    for path in [*files, *filter(None, (options.csv, options.totals, options.junit))]:
        if not path.parent.is_dir():
            raise ConfigurationError(f"{path}: there is no folder {path.parent}")
        if path.is_dir():
            raise ConfigurationError(f"{path} is a folder; give the name of a file to write")
    if options.index is not None and not options.index.is_dir():
        raise ConfigurationError(f"{options.index} is not a folder; give the work folder, such as work")
    if options.feedback is not None and options.feedback.exists() and not options.feedback.is_dir():
        raise ConfigurationError(f"{options.feedback} is a file; give a folder for the pages")
    names = {} if options.roster is None else read_roster(options.roster)
    overrides = [] if options.override is None else read_overrides(options.override)
    check_overrides(overrides)
    report = grade(
        options.notebooks,
        course=options.course,
        jobs=options.jobs,
        seconds=options.timeout,
        seed=options.seed,
        pictures=options.feedback is not None,
        progress=sys.stderr.isatty(),
    )
    report, unused = apply_overrides(report, overrides)
    strangers: list[str] = []
    if options.roster is not None:
        report, strangers = apply_roster(report, names)
    writers: list[tuple[Path | None, Callable[[], str]]] = [
        (files[0] if files else None, lambda: json.dumps(report.to_json(), indent=1) + "\n"),
        (options.csv, lambda: as_csv(report, names)),
        (options.totals, lambda: as_totals(report, names)),
        (options.junit, lambda: as_junit(report)),
    ]
    out: Any = sys.stderr if options.json == "-" else sys.stdout
    for path, text in writers:
        if path is not None:
            path.write_text(text(), encoding="utf-8")
    if options.feedback is not None:
        write_feedback(report, options.feedback, names)
    if options.index is not None:
        best: dict[str, float] = {}  # of an exercise that several notebooks have
        for e in (e for notebook in report.notebooks for e in notebook.exercises):
            best[e.exercise] = max(e.points, best.get(e.exercise, 0))
        index(options.index, options.course, best, say=partial(print, file=out))
    print(as_text(report, names), end="", file=out)
    for learner in strangers:
        near = difflib.get_close_matches(learner.casefold(), {name.casefold() for name in names}, n=1)
        hint = f" (did you mean {next(name for name in names if name.casefold() == near[0])}?)" if near else ""
        print(f"not on the roster: {clean(learner) or 'a notebook without a learner'}{hint}", file=out)
    for override in unused:
        print(f"override not used, there is no such notebook: {override.learner}, {override.exercise}", file=out)
    if options.json == "-":
        print(json.dumps(report.to_json(), indent=1))
    if all(notebook.problem for notebook in report.notebooks):
        return 2
    return 0 if report.complete and not report.warnings else 1
