"""Plain text tables and numbers for people."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["format_bytes", "format_time", "format_values", "render_table"]


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned, the first to the left, the others to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def draw(line: Sequence[str]) -> str:
        cells = [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        return "  ".join(cells).rstrip()

    return "\n".join([draw(lines[0]), "  ".join("-" * width for width in widths), *map(draw, lines[1:])])


def format_time(value: float, unit: str) -> str:
    """ "14 units", "0.253 s", "3.1 ms"."""
    if unit == "s":
        return f"{value * 1e3:.3g} ms" if value < 0.1 else f"{value:.3f} s"
    return f"{value:g} {unit}"


def format_bytes(value: float) -> str:
    """Decimal multiples: "19.1 MB"."""
    for size, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size:
            return f"{value / size:.1f} {name}"
    return f"{value:.0f} B"


def format_values(values: Sequence[float]) -> str:
    """ "64 48 32 16"."""
    return " ".join(f"{value:g}" for value in values)
