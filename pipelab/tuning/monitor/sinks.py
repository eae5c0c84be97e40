"""Where a monitor's figures go: a progress bar, a CSV file, TensorBoard. A sink is a function of a MonitorSummary."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from pipelab.errors import ConfigurationError
from pipelab.tuning.monitor.summary import MonitorSummary

__all__ = ["Sink", "to_bar", "to_csv", "to_tensorboard"]

Sink: TypeAlias = Callable[[MonitorSummary], object]


def to_bar(bar: Any) -> Sink:
    """Behind a tqdm bar; it is drawn when the bar next draws itself."""
    return lambda summary: bar.set_postfix_str(summary.line(), refresh=False)


def to_csv(path: str | os.PathLike[str]) -> Sink:
    """A row each time; a new file gets a header, and an old one must have the same."""
    file = Path(path)

    def write(summary: MonitorSummary) -> None:
        row = summary.row()
        with file.open("a+", newline="", encoding="utf-8") as out:
            out.seek(0)
            header = next(csv.reader(out), None)
            if header is not None and header != [*row]:
                raise ConfigurationError(f"{file} has other columns, from another pipeline; name a new file")
            writer = csv.writer(out)
            if header is None:
                writer.writerow(row)
            writer.writerow(row.values())

    return write


def to_tensorboard(folder: str | os.PathLike[str]) -> Sink:
    """A curve for each number. Raises ConfigurationError where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigurationError(
            f"tensorboard= needs TensorBoard, which cannot be loaded here ({error}): pip install tensorboard; "
            "csv= works without it"
        ) from None
    writer = SummaryWriter(os.fspath(folder))

    def write(summary: MonitorSummary) -> None:
        for name, value in summary.row().items():
            if name != "step" and value is not None:
                writer.add_scalar(f"pipelab/{name}", value, summary.step)
        writer.flush()

    return write
