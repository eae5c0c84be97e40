"""Numbers in the tables of the command line."""

from __future__ import annotations

from collections.abc import Sequence

from pipelab.quantities import format_bytes, format_time, render_table

__all__ = ["format_bytes", "format_time", "format_values", "render_table"]


def format_values(values: Sequence[float]) -> str:
    """ "64 48 32 16"."""
    return " ".join(f"{value:g}" for value in values)
