from __future__ import annotations

import threading

import pytest

from pipelab import ConfigurationError, ScheduleError
from pipelab.teaching.running.runs import Progress, Run, Stopped

LONG = 20  # seconds that no test should take


class Told(list):
    """What a run told: its progress, whenever it had changed."""

    def __call__(self, run):
        self.append(run.progress)

    @property
    def states(self):
        return [progress.state for progress in self]


@pytest.fixture(autouse=True)
def nothing_left_running():
    yield
    for thread in threading.enumerate():
        if thread.name == "pipelab run":
            thread.join(LONG)
            assert not thread.is_alive()
    assert Run(lambda progress: None, 1, lambda run: None).start().wait(LONG)


def wait_for(event):
    """Work that tells its progress, waits for ``event``, and tells it again."""
    begun = threading.Event()

    def work(progress):
        progress("first")
        begun.set()
        assert event.wait(LONG)
        progress("second")
        return "all of it"

    work.begun = begun
    return work


def test_a_run_that_is_done_has_its_result_and_told_each_of_its_pieces():
    told = Told()
    run = Run(lambda progress: [progress("one"), progress("two"), 42][-1], 2, told).start()
    assert run.wait(LONG)
    assert run.result == 42
    assert not run.running
    assert told == [
        Progress("running", "starting", 0, 2),
        Progress("running", "one", 1, 2),
        Progress("running", "two", 2, 2),
        Progress("done", "", 2, 2),
    ]


def test_the_caller_goes_on_meanwhile():
    event, told = threading.Event(), Told()
    run = Run(work := wait_for(event), 2, told).start()
    assert work.begun.wait(LONG)
    assert run.running
    assert run.result is None
    assert not run.wait(0.01)
    event.set()
    assert run.wait(LONG)
    assert (run.running, run.result) == (False, "all of it")


def test_it_runs_in_a_thread_that_ends_with_the_kernel():
    seen = []
    Run(lambda progress: seen.append(threading.current_thread()), 1, Told()).start().wait(LONG)
    assert seen[0] is not threading.current_thread()
    assert seen[0].daemon


def test_one_that_tells_more_pieces_than_there_are_is_never_more_than_done():
    told = Told()
    Run(lambda progress: [progress(str(k)) for k in range(3)], 2, told).start().wait(LONG)
    assert [progress.done for progress in told] == [0, 1, 2, 2, 2]


def test_a_stop_ends_it_at_its_next_sign_of_progress():
    event, told = threading.Event(), Told()
    run = Run(work := wait_for(event), 2, told).start()
    assert work.begun.wait(LONG)
    run.stop()
    event.set()
    assert run.wait(LONG)
    assert run.result is None
    assert told.states == ["running", "running", "stopped"]
    assert told[-1].words == "Stopped."


def test_stopping_what_is_over_changes_nothing():
    run = Run(lambda progress: 1, 1, Told()).start()
    assert run.wait(LONG)
    run.stop()
    assert (run.progress.state, run.result) == ("done", 1)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConfigurationError("take m of at most 16"), "take m of at most 16"),
        (ScheduleError("not sound"), "not sound"),
        (ZeroDivisionError("by zero"), "The run failed: ZeroDivisionError: by zero"),
        (MemoryError(), "The run failed: MemoryError: "),
    ],
)
def test_one_that_fails_says_why_in_words(error, words):
    def work(progress):
        progress("first")
        raise error

    told = Told()
    run = Run(work, 2, told).start()
    assert run.wait(LONG)
    assert told[-1] == Progress("failed", words)
    assert not run.running


def test_work_that_was_stopped_within_is_stopped_and_not_failed():
    def work(progress):
        raise Stopped("stopped")

    run = Run(work, 1, Told()).start()
    assert run.wait(LONG)
    assert run.progress.state == "stopped"


def test_there_is_one_run_at_a_time_and_the_other_is_refused_with_a_sentence():
    event, told = threading.Event(), Told()
    first = Run(work := wait_for(event), 2, Told()).start()
    assert work.begun.wait(LONG)
    second = Run(lambda progress: 2, 1, told)
    with pytest.raises(ConfigurationError, match="another run is still going in this notebook"):
        second.start()
    assert told == []
    event.set()
    assert first.wait(LONG)
    assert second.start().wait(LONG)
    assert second.result == 2


@pytest.mark.parametrize("end", ["done", "failed", "stopped"])
def test_whatever_comes_of_it_the_next_may_run(end):
    errors = {"done": None, "failed": ZeroDivisionError(), "stopped": Stopped()}

    def work(progress):
        if errors[end] is not None:
            raise errors[end]

    run = Run(work, 1, Told()).start()
    assert run.wait(LONG)
    assert run.progress.state == end
    assert Run(lambda progress: 1, 1, Told()).start().wait(LONG)


def test_the_next_may_run_too_where_nobody_could_be_told_of_the_first():
    """The page that was to be told could not be: the lock stayed taken, and nothing could run any more."""

    def tell(run):
        raise RuntimeError("the page is closed")

    with pytest.raises(RuntimeError, match="the page is closed"):
        Run(lambda progress: 1, 1, tell).start()
    assert Run(lambda progress: 1, 1, Told()).start().wait(LONG)
