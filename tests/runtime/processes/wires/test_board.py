"""What a process has written down is read when it is gone, and that it is gone is known."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from pipelab import TimeLimitError, build_schedule
from pipelab.runtime.device.program import SLOT, compile_table
from pipelab.runtime.faults.limit import TimeLimit
from pipelab.runtime.faults.where import OUTSIDE, SAVING, UPDATING
from pipelab.runtime.processes.wires import board as module
from pipelab.runtime.processes.wires.board import Board, Far


class Store(dict):
    """As much of a store as hosts need."""

    def set(self, key, value):
        self[key] = value

    def multi_get(self, keys):
        return [self[key].encode() for key in keys]


def driving(board, device, place):
    """A process that drives ``device`` and stays; its pid."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            mine = Board(board.size, board.file)
            mine.claim(device)
            mine.whereabouts[device] = place
            os.write(told, b"!")
            signal.pause()
        finally:
            os._exit(0)
    os.read(ready, 1)
    os.close(ready)
    os.close(told)
    return pid


def test_who_has_ended_without_a_word_is_gone_and_where_it_was_can_be_read():
    board = Board(3)
    board.claim(0)
    pids = {device: driving(board, device, device * SLOT + 2) for device in (1, 2)}
    try:
        assert board.gone(0) == []
        os.kill(pids[2], signal.SIGKILL)
        os.waitpid(pids.pop(2), 0)
        assert board.gone(0) == [2]
        assert list(board.whereabouts) == [OUTSIDE, SLOT + 2, 2 * SLOT + 2]
        board.pids[2] = 0  # as one does that takes leave
        assert board.gone(0) == []
    finally:
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        board.close()
        board.close()


def test_the_patience_with_others_ends_unless_one_is_outside_or_saving(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("pipelab.runtime.faults.limit.time.monotonic", lambda: now[0])
    board = Board(3)
    table = compile_table(build_schedule("1f1b", 3, 3))
    for busy in (OUTSIDE, SAVING):
        board.whereabouts[:] = memoryview(bytes(24)).cast("q")
        board.whereabouts[1] = busy
        look = board.patience(0, TimeLimit(2.0), table, Far(Store(), 0))
        for _ in range(20):
            now[0] += 1.0
            look()
    board.whereabouts[1], board.whereabouts[2] = UPDATING, SLOT + 2
    with pytest.raises(
        TimeLimitError, match=r"not moved for 2 s: device 2 is in 2B0 \(stage 2, micro-batch 0\)"
    ) as caught:
        for _ in range(20):
            now[0] += 1.0
            look()
    assert caught.value.stuck == (2,)
    board.close()


def test_hosts_tell_each_other_where_they_are_in_this_walk(monkeypatch):
    now, store = [0.0], Store()
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    ends = [Far(store, rank) for rank in range(2)]
    for end, far in zip(ends, (1, 0), strict=True):
        end.ranks, end.walk = (far,), 1

    def look(rank, own):
        now[0] += 1.0
        return ends[rank].look([own if r == rank else 77 for r in range(2)])

    assert look(0, 5) == [5, OUTSIDE], "what this host's page says of others means nothing"
    ends[1].tell([77, 9])
    assert look(0, 5) == [5, 9]
    ends[0].walk = 2
    assert look(0, 5) == [5, OUTSIDE], "that was in the walk before"


def test_the_patience_with_another_host_ends_when_nothing_is_heard_of_it(monkeypatch):
    now, store = [0.0], Store()
    monkeypatch.setattr("pipelab.runtime.faults.limit.time.monotonic", lambda: now[0])
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    board, here, there = Board(2), Far(store, 0), Far(store, 1)
    here.ranks = (1,)
    look = board.patience(0, TimeLimit(3.0), None, here)
    for _ in range(20):  # it is between two calls, and says so
        now[0] += 1.0
        there.tell([OUTSIDE, OUTSIDE])
        look()
    with pytest.raises(
        TimeLimitError, match=r"nothing has been heard .* for 3 s; .*device 1 is between two calls"
    ) as caught:
        for _ in range(10):
            now[0] += 1.0
            look()
    assert caught.value.stuck == (1,)
    board.close()


def test_who_is_told_of_no_limit_may_hold_the_interpreter_for_long():
    assert TimeLimit(None).silence > 300
    assert TimeLimit(5.0).silence == 5.0


def test_the_thread_that_tells_other_hosts_ends_with_its_group():
    told = threading.Event()
    store = Store()
    far = Far(store, 0)
    store.set = lambda key, value: told.set()
    far.begin([1], [OUTSIDE, OUTSIDE])
    assert told.wait(5)
    far.close()
    assert not far._teller.is_alive


def test_a_board_that_is_forgotten_lets_go_of_its_file():
    before = len(os.listdir("/dev/fd"))
    for _ in range(10):
        Board(2).claim(0)
    assert len(os.listdir("/dev/fd")) <= before + 1
