"""Which mistake an answer comes from, where it can be told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["shown", "the_only"]


def the_only(known: Iterable[tuple[bool, str]]) -> str:
    """Of (whether this mistake gives the answer, why it is one) the only reason; "" where there is none or a choice."""
    reasons = [why for gives, why in known if gives]
    return reasons[0] if len(reasons) == 1 else ""


def shown(values: Sequence[float]) -> str:
    """A list in words, its first entries if it is long."""
    return "[" + ", ".join(f"{value:g}" for value in values[:16]) + (", ...]" if len(values) > 16 else "]")
