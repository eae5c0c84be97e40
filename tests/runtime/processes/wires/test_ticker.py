"""What ticks stops when it is told to, when its work says so, and before Python ends."""

import subprocess
import sys
import threading

from pipelab.runtime.processes.wires.ticker import Ticker


def test_it_ticks_until_it_is_stopped():
    ticked = threading.Event()
    ticker = Ticker(0.01, ticked.set, "test")
    assert ticked.wait(5)
    ticker.stop()
    assert not ticker.is_alive
    ticker.stop()


def test_it_ends_when_its_work_is_done_and_may_be_stopped_by_it():
    counts = []

    def work():
        counts.append(1)
        if len(counts) == 3:
            ticker.stop()
        return len(counts) == 3

    ticker = Ticker(0.01, work, "test")
    ticker._thread.join(5)
    assert not ticker.is_alive
    assert len(counts) == 3


def test_a_program_that_forgets_it_ends_well():
    """A store is asked in C++: whoever came back from there into a Python that has ended took the process down."""
    program = """
import tempfile, torch.distributed as dist
from pipelab.runtime.processes.wires.ticker import Ticker
store = dist.FileStore(tempfile.mkdtemp() + "/store", 1)
Ticker(1e-4, lambda: store.set("here", "1"), "test")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
