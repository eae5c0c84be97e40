"""Letting go of a gloo group; what its rounds say is in the tests under torchrun."""

from __future__ import annotations

import gc
import time
import weakref

import pytest

from pipelab.runtime.processes.wires import rounds


class Group:
    pass


class Work:
    def __init__(self, ends: float) -> None:
        self._ends = ends

    def is_completed(self) -> bool:
        return time.monotonic() >= self._ends


@pytest.mark.parametrize("ends, stays", [(0.05, False), (1e9, True)])
def test_a_group_whose_round_never_ends_is_not_waited_for(monkeypatch, ends, stays):
    """Story: gloo began to send just after it had been cut. Two ranks waited for its thread until they were killed."""
    monkeypatch.setattr(rounds, "_CUT_TAKES", 0.1)
    group = Group()
    seen = weakref.ref(group)
    begun = time.monotonic()
    rounds.let_go(group, Work(begun + ends))
    del group
    gc.collect()
    assert (seen() is not None) == stays
    assert time.monotonic() - begun < 5
