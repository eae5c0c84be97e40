import sys
import threading

from pipelab.runtime.processes.server import unsafe_to_fork


def test_a_process_with_threads_had_better_not_be_forked(monkeypatch):
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert "threads" in unsafe_to_fork()
    finally:
        stop.set()
        thread.join()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "on darwin system libraries do not survive a fork" in unsafe_to_fork()
