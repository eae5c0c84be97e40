"""What a process has written down is read when it is gone, and that it is gone is known."""

from __future__ import annotations

import os
import signal

import pytest

from pipelab import TimeLimitError, build_schedule
from pipelab.runtime.device.program import SLOT, compile_table
from pipelab.runtime.faults.where import OUTSIDE, SAVING, UPDATING
from pipelab.runtime.processes.wires import board as module
from pipelab.runtime.processes.wires.board import Board, Far


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
        look = board.patience(0, 2.0, table)
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


def test_hosts_tell_each_other_only_while_they_wait_and_of_this_walk_only(monkeypatch):
    now, store = [0.0], {}

    class Store:
        set = staticmethod(store.__setitem__)

        @staticmethod
        def multi_get(keys):
            return [store[key].encode() for key in keys]

    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    ends = [Far(Store, rank) for rank in range(2)]
    for end, far in zip(ends, (1, 0), strict=True):
        end.ranks, end.walk = (far,), 1

    def look(rank, own):
        now[0] += 1.0
        return ends[rank].look([own if r == rank else 77 for r in range(2)])

    assert look(0, 5) == [5, OUTSIDE], "what this host's page says of others means nothing"
    look(1, 9)
    assert look(0, 5) == [5, OUTSIDE], "it had moved since it looked last"
    look(1, 9)
    assert look(0, 5) == [5, 9]
    ends[0].walk = 2
    assert look(0, 5) == [5, OUTSIDE], "that was in the walk before"


def test_a_board_that_is_forgotten_lets_go_of_its_file():
    before = len(os.listdir("/dev/fd"))
    for _ in range(10):
        Board(2).claim(0)
    assert len(os.listdir("/dev/fd")) <= before + 1
