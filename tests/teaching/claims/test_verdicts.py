"""The trials of a page: what is asked, what was settled, and the guess beside it."""

import pytest

from pipelab.errors import ConfigurationError
from pipelab.teaching.claims.verdicts import Verdicts
from pipelab.teaching.guesses import Ledger, predict
from tests.teaching.claims.test_claim import CLAIM

FIGURES = {"gpipe": 0.5, "one_f": 0.5, "gain": 0.0}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_table_is_made_of_what_was_settled_and_of_nothing_else():
    verdicts = Verdicts()
    assert "Nothing has been settled" in str(verdicts)
    assert "Nothing has been settled" in verdicts._repr_html_()
    verdicts.settle("12-busier", **FIGURES)
    verdicts.settle("12-busier", **FIGURES | {"gain": 0.2})
    verdicts.settle(CLAIM, one=-1, two=2)
    assert str(verdicts).endswith("2 claims settled: 1 true, 1 true if, 0 false")
    assert verdicts._repr_html_().count("<tr>") == 3
    assert "1F1B keeps devices much busier" in verdicts._repr_html_()


def test_a_guess_is_shown_on_the_card_and_written_into_the_ledger():
    predict("12-busier", "How much?", unit="% points").commit(17)
    card = Verdicts().settle("12-busier", **FIGURES)
    assert card.guess == "Your guess: 17 % points (off by 17 % points)."
    assert card.guess in str(card)
    assert card.guess in card._repr_mimebundle_()["text/html"]
    assert Ledger.here().entries["12-busier"].measurement == 0


def test_percentages_are_compared_as_percentages():
    predict("12-ratio", "How much?", unit="%").commit(15.8)
    card = Verdicts().settle("12-ratio", formula=3 / 16, of_total=3 / 19, of_busy=3 / 16)
    assert "within 5 %" in card.guess


def test_asking_shows_the_claim_and_a_field(capsys):
    Verdicts().ask("12-busier", "12-waits")
    said = capsys.readouterr().out
    assert "1F1B keeps devices much busier" in said
    assert "when does the second stage start?" in said


def test_a_claim_that_is_not_known_gets_the_nearest_name():
    with pytest.raises(ConfigurationError, match="no claim '12-busy'; did you mean '12-busier'"):
        Verdicts().settle("12-busy", **FIGURES)
    with pytest.raises(ConfigurationError, match="did you mean '12-waits'"):
        Verdicts().ask("12-wait")
