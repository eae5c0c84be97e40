"""Small words that the sentences of the board share."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["columns", "counted", "held", "listed", "microbatches", "sentence", "shares"]


def listed(items: Iterable[object]) -> str:
    """ "a", "a and b", "a, b and c"."""
    words = [str(item) for item in items]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def counted(number: int, what: str) -> str:
    """ "1 column", "2 columns"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def columns(number: int) -> str:
    """ "1 column", "2 columns": time on a board."""
    return counted(number, "column")


def microbatches(number: int) -> str:
    """ "1 micro-batch", "2 micro-batches"."""
    return f"{number} micro-batch" if number == 1 else f"{number} micro-batches"


def held(shares: float) -> str:
    """ "1 micro-batch", "2.5 micro-batches": what a device holds, in full shares."""
    return "1 micro-batch" if shares == 1 else f"{shares:.3g} micro-batches"


def sentence(text: str) -> str:
    """``text`` with a capital and a full stop."""
    text = text[0].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def shares(peaks: Iterable[float]) -> str:
    """ "2, 1.5": what each device holds, in full shares."""
    return ", ".join(f"{peak:.3g}" for peak in peaks)
