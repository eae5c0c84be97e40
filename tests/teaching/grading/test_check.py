from __future__ import annotations

import pytest

from pipelab.errors import ConfigurationError
from pipelab.teaching.grading import CheckFailed, NotWritten, check, progress
from tests.teaching.grading.notebooks import RIGHT

space: dict = {}
exec(RIGHT, space)
right = space["utilisation"]


def half_right(rows):
    return 1 / len(rows)


def test_a_visible_check_never_says_that_all_is_right(capsys):
    assert check("utilisation", right) is None
    assert capsys.readouterr().out == "Visible checks passed: one micro-batch, any table.\n"


def test_in_a_notebook_each_part_says_that_it_is_tried_and_the_line_goes_again(capsys, monkeypatch):
    """A check that trains a model takes up to half a minute: without a word it looked stuck."""
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.clear_output", lambda wait: print("cleared" if wait else "at once"))
    check("utilisation", right)
    *told, last = capsys.readouterr().out.splitlines()
    assert last == "Visible checks passed: one micro-batch, any table."
    assert told[0] == told[-1] == "cleared"
    assert told[1].startswith("Trying case 1 of ")
    assert [part for part in ("one micro-batch", "any table") if any(f"({part}):" in line for line in told)] == [
        "one micro-batch",
        "any table",
    ]


def test_a_failed_check_teaches_in_one_sentence():
    with pytest.raises(CheckFailed, match=r"Not yet\. .*the bubble fraction") as caught:
        check("utilisation", lambda rows: 1 - right(rows))
    assert caught.value._render_traceback_() == [str(caught.value)]
    assert isinstance(caught.value, AssertionError)


def test_which_parts_pass_is_told():
    with pytest.raises(CheckFailed, match=r"passed: one micro-batch; still open: any table"):
        check("utilisation", half_right)


def test_a_stub_is_told_from_a_wrong_answer():
    def stub(rows):
        raise NotWritten("utilisation")

    with pytest.raises(CheckFailed, match="not written yet"):
        check("utilisation", stub)
    with pytest.raises(NotWritten) as caught:
        stub([])
    assert caught.value._render_traceback_() == [
        "utilisation is not written yet: replace the line that raises NotWritten."
    ]


def test_wrong_use_says_how_it_is_used():
    with pytest.raises(ConfigurationError, match="did you mean 'utilisation'"):
        check("utilization", right)
    with pytest.raises(ConfigurationError, match=r'check\("utilisation", utilisation\)'):
        check("utilisation")


def test_inside_nbgraders_autograde_parts_count(monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    assert check("utilisation", right) == 2.0
    assert check("utilisation", half_right) == 1.0
    with pytest.raises(CheckFailed):
        check("utilisation", lambda rows: 7)
