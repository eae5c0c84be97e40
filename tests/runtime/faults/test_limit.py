"""How long is too long: as told or learnt, and only by what was seen to go by."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from pipelab.runtime.faults import limit as module
from pipelab.runtime.faults.limit import Patience, TimeLimit, is_stopped


def test_a_limit_is_learnt_unless_it_was_told():
    learnt, told = TimeLimit(None), TimeLimit(2.5)
    assert learnt.seconds == 600
    for one in (learnt, told):
        one.learn(7.0)
        one.learn(1.0)
    assert (learnt.seconds, told.seconds) == (140, 2.5)
    learnt.learn(3600.0)
    assert learnt.seconds == 20 * 140, "what is beyond the limit was spent stopped"
    learnt.kind = "another table, or another batch"
    assert learnt.seconds == 600


def test_patience_ends_when_nothing_has_changed_for_long_and_an_hour_of_standstill_does_not_count(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    patience = Patience(3.0, 1.0)

    def after(seconds, seen):
        now[0] += seconds
        return patience.is_over(seen)

    assert not any(after(1.0, [k]) for k in range(10)), "something changes"
    assert not any(after(1.0, [9]) for _ in range(3))
    assert not after(1.0, [10])
    assert not after(3600.0, [10]), "this process itself had been stopped: as an interval and no more"
    assert after(1.5, [10])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of other processes by /proc")
def test_a_stopped_process_is_known():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert not is_stopped(process.pid)
        os.kill(process.pid, signal.SIGSTOP)
        end = time.monotonic() + 10
        while not is_stopped(process.pid):
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert not is_stopped(process.pid), "it is no more"
