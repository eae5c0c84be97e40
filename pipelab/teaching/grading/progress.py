"""What a check says while it runs: which case it tries. Gone when it has ended."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

from pipelab.teaching.exercises.definition import Case

__all__ = ["told"]

_SELDOM = 0.5
"""Seconds between two lines; a new part is always told, because its first case may be the one that takes long."""


def told(cases: Sequence[Case]) -> Iterable[Case]:
    """``cases``, each named on the page before it is tried; outside a notebook nothing is shown."""
    return _named(cases) if _in_notebook() else cases


def _named(cases: Sequence[Case]) -> Iterator[Case]:
    from IPython.display import clear_output

    part, last = None, 0.0
    for k, case in enumerate(cases):
        if case.part != part or time.monotonic() - last > _SELDOM:
            part, last = case.part, time.monotonic()
            clear_output(wait=True)
            print(f"Trying case {k + 1} of {len(cases)} ({case.part}): {case.words} ...", flush=True)  # noqa: T201
        yield case
    clear_output(wait=True)  # what comes next takes its place


def _in_notebook() -> bool:
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None
