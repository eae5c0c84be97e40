from __future__ import annotations

import threading

import pytest

from pipelab import ConfigurationError
from pipelab.teaching.running.running_widget import RunningWidget
from pipelab.teaching.running.runs import Run

LONG = 20


class Counter(RunningWidget):
    """A widget that shows a number, and runs something that is worked out from it."""

    def __init__(self, number=1):
        self.number, self.found = number, None
        self.gate, self.begun = threading.Event(), threading.Event()
        self.fails = None
        super().__init__("counter", {"number": number})

    def send(self, content, buffers=None):
        pass

    def turn(self, number):
        self.number, self.found = number, None
        self._leave_run("The number changed, so the run was stopped.")

    def run(self):
        number = self.number

        def work(progress):
            progress("counting")
            self.begun.set()
            assert self.gate.wait(LONG)
            progress("nearly there")
            if self.fails is not None:
                raise self.fails
            return 10 * number

        self._begin(work, 2, self.finish)

    def finish(self, found):
        self.found = found
        return f"It is {found}."


@pytest.fixture
def widget():
    made = Counter()
    yield made
    made.gate.set()
    for thread in threading.enumerate():
        if thread.name == "pipelab run":
            thread.join(LONG)
    assert Run._one.acquire(blocking=False)
    Run._one.release()


def test_where_nothing_was_run_there_is_nothing_to_tell(widget):
    assert widget.run_state == {}
    assert not widget.running
    widget.stop()
    widget._wait()
    assert widget.run_state == {}


def test_the_browser_is_told_of_each_step_and_of_what_came_of_it(widget):
    told = []
    widget.observe(lambda change: told.append(change["new"]), "run_state")
    widget.gate.set()
    widget.run()
    widget._wait()
    assert widget.found == 10
    assert told == [
        {"state": "running", "words": "starting", "done": 0, "total": 2},
        {"state": "running", "words": "counting", "done": 1, "total": 2},
        {"state": "running", "words": "nearly there", "done": 2, "total": 2},
        {"state": "done", "words": "It is 10.", "done": 2, "total": 2},
    ]


def test_while_it_runs_another_is_refused(widget):
    widget.run()
    assert widget.begun.wait(LONG)
    assert widget.running
    with pytest.raises(ConfigurationError, match="it is already running; stop it first, or wait"):
        widget.run()
    widget.gate.set()
    widget._wait()
    assert widget.found == 10


def test_a_start_elsewhere_stops_what_runs_for_its_own_stop_may_be_gone(widget):
    """A cell that is run again has lost the widget that runs; the new one has to be able to end it."""
    widget.run()
    assert widget.begun.wait(LONG)
    other = Counter()
    with pytest.raises(ConfigurationError, match="another run is still going in this notebook"):
        other.run()
    widget.gate.set()
    widget._wait()
    assert (widget.found, widget.run_state["state"]) == (None, "stopped")
    other.gate.set()
    other.run()
    other._wait()
    assert other.found is not None


def test_a_widget_that_was_refused_has_not_run(widget):
    other = Counter(2)
    widget.run()
    assert widget.begun.wait(LONG)
    with pytest.raises(ConfigurationError):
        other.run()
    assert (other.running, other.run_state) == (False, {})
    widget.gate.set()
    widget._wait()
    other.gate.set()
    other.run()
    other._wait()
    assert other.found == 20


def test_a_stop_is_told_and_nothing_comes_of_it(widget):
    widget.run()
    assert widget.begun.wait(LONG)
    widget.stop()
    widget.gate.set()
    widget._wait()
    assert widget.found is None
    assert (widget.run_state["state"], widget.run_state["words"]) == ("stopped", "Stopped.")


def test_when_what_is_shown_changes_the_run_is_left_and_that_is_said(widget):
    widget.run()
    assert widget.begun.wait(LONG)
    left = widget._run
    widget.turn(2)
    said = {"state": "stopped", "words": "The number changed, so the run was stopped."}
    assert widget.run_state == said
    assert not widget.running
    widget.gate.set()
    assert left.wait(LONG)
    assert left.progress.state == "stopped"
    assert (widget.found, widget.run_state) == (None, said)


def test_a_result_that_comes_too_late_is_not_shown(widget, monkeypatch):
    """The work was over its last sign of progress when the number was turned: it cannot be stopped any more."""
    monkeypatch.setattr(Run, "stop", lambda self: None)
    widget.run()
    assert widget.begun.wait(LONG)
    left = widget._run
    widget.turn(2)
    widget.gate.set()
    assert left.wait(LONG)
    assert left.result == 10
    assert widget.found is None
    assert widget.run_state["state"] == "stopped"


def test_after_a_run_a_change_wipes_what_was_said_of_it(widget):
    widget.gate.set()
    widget.run()
    widget._wait()
    widget.turn(3)
    assert widget.run_state == {}


@pytest.mark.parametrize(
    ("error", "words"),
    [(ConfigurationError("take m = 4"), "take m = 4"), (ValueError("odd"), "The run failed: ValueError: odd")],
)
def test_one_that_fails_says_why_in_the_browser_and_in_python(widget, error, words):
    widget.fails = error
    widget.gate.set()
    widget.run()
    with pytest.raises(ConfigurationError, match=words):
        widget._wait()
    assert widget.run_state == {"state": "failed", "words": words, "done": 0, "total": 0}
    widget.fails = None
    widget.run()
    widget._wait()
    assert widget.run_state["state"] == "done"
