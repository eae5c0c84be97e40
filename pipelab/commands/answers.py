"""What commands say of a timeline: figures for people or as JSON, a picture, a trace."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelab.schedules import Schedule
from pipelab.timeline import Timeline

__all__ = ["headline", "write"]


def headline(schedule: Schedule, m: int) -> str:
    """ "1f1b: p = 4, m = 4"."""
    chunks = f", v = {schedule.chunks}" if schedule.share < 1 else ""
    return f"{schedule.name}: p = {schedule.devices}, m = {m}{chunks}"


def write(
    options: argparse.Namespace,
    figures: dict[str, Any],
    lines: Sequence[str],
    timeline: Timeline,
    predicted: Timeline | None = None,
) -> None:
    """Text for people unless standard output is for JSON; then pictures and traces.

    The picture shows the timeline, with the ``predicted`` one above it where there is one.
    """
    text = json.dumps(figures, indent=2, allow_nan=False)
    if options.json == "-":
        print(text)
    else:
        print("\n".join(lines))
        if options.json:
            Path(options.json).write_text(text + "\n")
    if options.plot is not None:
        from pipelab.view import plot_prediction, plot_timeline

        picture = plot_timeline(timeline) if predicted is None else plot_prediction(predicted, timeline)
        picture.save(options.plot)
    if options.trace is not None:
        options.trace.write_text(timeline.to_chrome_trace())
