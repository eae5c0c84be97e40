"""How large text is, and which label a block has room for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

__all__ = ["FONT", "LINE", "SIZES", "best_fit", "fits", "text_width", "wrap"]

FONT = "DejaVu Sans"  # comes with matplotlib, so every machine has it
SIZES = (9.0, 8.0, 7.0)  # of labels on blocks; below 7 pt nothing is read in print
_AROUND = 1.0  # pt of air on each side of a label
LINE = 1.22  # height of a line of text in sizes of its font


@lru_cache(maxsize=4096)
def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width of ``text`` in points."""
    font = FontProperties(family=FONT, size=size, weight=weight)
    width: float = text_to_path.get_text_width_height_descent(text, font, False)[0]
    return width


def fits(text: str, size: float, width: float, height: float) -> bool:
    """Whether ``text`` stays inside a block of ``width`` x ``height`` points."""
    return height >= LINE * size and width >= text_width(text, size) + 2 * _AROUND


def best_fit(forms: Sequence[str], width: float, height: float, largest: float) -> tuple[str, float] | None:
    """The first of ``forms`` (long to short) that fits, in the largest size up to ``largest``; None if none does."""
    sizes = [size for size in SIZES if size <= largest]
    return next(((form, size) for form in forms for size in sizes if fits(form, size, width, height)), None)


def wrap(text: str, size: float, width: float, weight: str = "normal") -> list[str]:
    """``text`` in as few lines as ``width`` points allow, all about as long: no word stands alone on the last one."""
    lines = _filled(text, size, width, weight)
    narrow = text_width(text, size, weight) / len(lines)
    while narrow < width and len(_filled(text, size, narrow, weight)) > len(lines):
        narrow += size
    return _filled(text, size, min(narrow, width), weight)


def _filled(text: str, size: float, width: float, weight: str) -> list[str]:
    """Lines as long as they may be, broken at blanks, but not around "=": p = 4 is one word."""
    lines: list[str] = []
    for word in re.split(r"(?<!=) +(?!=)", text):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size, weight) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
