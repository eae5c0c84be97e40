"""Plain text tables and numbers for people."""

from __future__ import annotations

from collections.abc import Sequence

from pipelab.quantities import format_bytes, format_time

__all__ = ["format_bytes", "format_time", "format_values", "render_table"]


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned, the first to the left, the others to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def draw(line: Sequence[str]) -> str:
        cells = [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        return "  ".join(cells).rstrip()

    return "\n".join([draw(lines[0]), "  ".join("-" * width for width in widths), *map(draw, lines[1:])])


def format_values(values: Sequence[float]) -> str:
    """ "64 48 32 16"."""
    return " ".join(f"{value:g}" for value in values)
