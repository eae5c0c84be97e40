from __future__ import annotations

import json

import pytest

from pipelab.teaching.guesses import Entry, Ledger, ledger, predict, read_guess, reveal


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "guesses.json").write_text("[]")
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


def test_a_guess_is_kept_and_shown_beside_prediction_and_measurement(here):
    predict("a", "How many slots?", unit="slots").commit(16)
    shown = reveal("a", prediction=14, measurement=14.0)
    assert "your guess 16 slots (1.1 times too high)" in str(shown)
    assert "<td" in shown._repr_mimebundle_()["text/html"]
    assert json.loads((here / "guesses.json").read_text())[0]["measurement"] == 14.0
    assert "0 of 1 guesses within 5 %" in str(ledger())
    assert "How many slots?" in ledger()._repr_html_()


def test_without_a_guess_nothing_is_asked_and_nothing_written(here):
    shown = reveal("a", prediction=14, measurement=14.5, unit="slots")
    assert str(shown) == "you made no guess · prediction 14 slots · measurement 14.5 slots"
    assert json.loads((here / "guesses.json").read_text()) == []
    assert "No guesses yet" in str(ledger())


def test_the_ledger_grows_over_lessons_and_kernels(here):
    predict("a", "first?").commit(1)
    predict("b", "second?").commit(2)
    predict("a", "first?").commit(3)
    assert [(e.name, e.guess) for e in Ledger(here / "guesses.json").entries.values()] == [("a", 3), ("b", 2)]


def test_a_ledger_that_cannot_be_read_is_put_aside_not_lost(here):
    (here / "guesses.json").write_text("{ torn")
    predict("a", "first?").commit(1)
    assert (here / "guesses.unreadable").read_text() == "{ torn"
    assert predict("a", "first?").guess == 1


@pytest.mark.parametrize(
    "typed, number",
    [("43", 43), (" 42.9 % ", 42.9), ("3/7", 3 / 7), ("0,43", 0.43), ("1,024,000", 1024000), ("-2", -2), ("1e3", 1000)],
)
def test_what_a_person_types_is_read(typed, number):
    assert read_guess(typed) == pytest.approx(number)


@pytest.mark.parametrize("typed", ["", "many", "1/0", "nan", "inf", "3 or 4"])
def test_what_is_no_number_is_none(typed):
    assert read_guess(typed) is None


@pytest.mark.parametrize(
    "guess, truth, verdict",
    [
        (14, 14, "within 5 %"),
        (14.6, 14, "within 5 %"),
        (28, 14, "2 times too high"),
        (7, 14, "2 times too low"),
        (3, 0, "off by 3 slots"),
        (-1, 14, "off by -15 slots"),
        (None, 14, "no guess"),
        (14, None, "no result yet"),
    ],
)
def test_how_far_off_a_guess_was(guess, truth, verdict):
    assert Entry("a", unit="slots", guess=guess, measurement=truth).verdict == verdict


def test_the_field_shows_something_where_widgets_do_not_run():
    bundle = predict("a", "How <many>?", unit="%")._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "How &lt;many&gt;?" in bundle["text/html"]
    assert bundle["text/plain"] == "Your guess. How <many>? ____ %"


def test_the_ledger_is_readable_where_html_is_not_shown(here):
    assert repr(ledger()) == "No guesses yet. The lessons ask for them in prediction fields."
