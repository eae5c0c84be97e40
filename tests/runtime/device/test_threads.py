from __future__ import annotations

import threading
import time

import pytest

from pipelab.runtime.device.channels import Aborted
from pipelab.runtime.device.threads import run_threads


def test_results_come_in_order_with_the_cpu_time_of_each():
    def busy():
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass
        return "busy"

    outcomes = run_threads([busy, lambda: "idle"], lambda: None)
    assert [o.result for o in outcomes] == ["busy", "idle"]
    assert outcomes[0].cpu >= 0.05 > outcomes[1].cpu


def test_the_first_error_is_raised_after_all_have_ended():
    stop = threading.Event()

    def wait():
        assert stop.wait(10)
        raise Aborted

    def fail():
        raise LookupError("first")

    with pytest.raises(LookupError, match="first"):
        run_threads([wait, fail, wait], stop.set)
    assert not [t for t in threading.enumerate() if t.name.startswith("pipelab")]
