"""launch="processes": the same results from processes of their own, and nothing left when one fails."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from pipelab import ConfigurationError, LostProcessError
from pipelab.flow import Flow, FlowError, Resource, Stage

ROOT = Path(__file__).parents[2]


def run(work, items=4):
    """Of a flow whose last stage is on a disk: that runs here."""
    return Flow(
        Stage("work", work, Resource("core", 2)),
        Stage("after", lambda x: (os.getpid(), x), Resource("disk", kind="disk")),
    ).run(range(items), launch="processes", progress=False)


def test_cores_are_processes_and_what_cells_define_travels():
    factor = np.arange(3)
    report = run(lambda i: (os.getpid(), i * factor))
    assert [list(x) for _, (_, x) in report.results] == [[0, i, 2 * i] for i in range(4)]
    assert {here for here, _ in report.results} == {os.getpid()}
    others = {there for _, (there, _) in report.results}
    assert os.getpid() not in others
    assert not any(alive(pid) for pid in others)
    assert report.costs["work"] > 0


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_error_there_is_an_error_here_with_its_traceback():
    def fail(i):
        raise KeyError(i)

    with pytest.raises(FlowError, match=r"'work' \d failed: KeyError: \d") as caught:
        run(fail)
    assert "in fail" in "".join(caught.value.__cause__.__notes__)


def test_a_process_that_dies_ends_the_flow():
    with pytest.raises(FlowError, match=r"the process of core \d has ended with exit code -9") as caught:
        run(lambda i: os.kill(os.getpid(), signal.SIGKILL))
    assert isinstance(caught.value.__cause__, LostProcessError)


def test_what_cannot_travel_is_named_before_anything_starts():
    lock = threading.Lock()
    with pytest.raises(ConfigurationError, match=r"the work of stage 'work' .*lock.* cannot be sent"):
        run(lambda i: lock.acquire())


def test_a_result_that_cannot_travel_is_an_error_of_its_job():
    with pytest.raises(FlowError, match="'work' 0 failed: TypeError"):
        run(lambda i: threading.Lock(), items=1)


SCRIPT = """
import os, sys, time
from pipelab.flow import Flow, Resource, Stage
def work(i):
    if i == 0:
        print(os.getpid(), flush=True)
    time.sleep(600)
Flow(Stage("work", work, Resource("core"))).run(range(3), launch="processes", progress=False)
"""


@pytest.mark.slow  # it starts a Python that loads torch
def test_an_interrupt_ends_the_processes_whatever_they_do():
    """The functions of a script travel without that the script is run again."""
    begun = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    pid = int(begun.stdout.readline())
    begun.send_signal(signal.SIGINT)
    _, error = begun.communicate(timeout=60)
    assert "KeyboardInterrupt" in error
    for _ in range(100):
        if not alive(pid):
            break
        time.sleep(0.05)
    assert not alive(pid)


def test_an_error_of_reading_is_no_dead_process_and_has_no_circle_of_causes():
    def work(item):
        raise EOFError("the file is cut off")

    with pytest.raises(FlowError, match="EOFError: the file is cut off") as caught:
        run(work)
    assert isinstance(caught.value.__cause__, EOFError)
    assert caught.value.__cause__.__cause__ is None
