"""Work on one core each: libraries that start threads of their own are held to one while a flow runs."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from pipelab.runtime.device.threads import one_intra_op_thread

__all__ = ["one_core_each"]

_NAMES = ("scipy_openblas_{}_num_threads64_", "scipy_openblas_{}_num_threads", "openblas_{}_num_threads")


@contextmanager
def one_core_each() -> Iterator[None]:
    """One thread for each call of torch, and of numpy where its library can be told; as before at the end.

    Else two workers would share their cores with each other's threads, and a thread's CPU time would miss the work that
    other threads do for it.
    """
    with one_intra_op_thread(True):
        _hold(1)
        try:
            yield
        finally:
            _hold(-1)


_lock = threading.Lock()
_holding = [0, 0]
"""How many flows run now, and how many threads numpy used before the first of them."""


def _hold(more: int) -> None:
    """A flow begins (1) or ends (-1): the first one holds numpy to one thread, the last one lets it go."""
    told = _numpy_threads()
    with _lock:
        if told is not None and more > 0 and not _holding[0]:
            _holding[1] = told[0]()
            told[1](1)
        _holding[0] += more
        if told is not None and not _holding[0]:
            told[1](_holding[1])


def _numpy_threads() -> tuple[Callable[[], int], Callable[[int], Any]] | None:
    """How to ask and to tell the library of numpy's matrix products how many threads it may use; None if unknown."""
    core: Any = getattr(np, "_core", None) or np.core  # numpy 2, numpy 1
    library = ctypes.CDLL(core._multiarray_umath.__file__)
    for name in _NAMES:
        found = [getattr(library, name.format(what), None) for what in ("get", "set")]
        if found[0] is not None and found[1] is not None:
            return found[0], found[1]
    return None
