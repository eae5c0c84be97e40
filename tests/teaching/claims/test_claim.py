"""A claim's verdict follows from its figures alone."""

from dataclasses import replace

import pytest

from pipelab.errors import ConfigurationError
from pipelab.teaching.claims.claim import SOURCES, Claim

CLAIM = Claim(
    "12-small",
    "Two is more than <one>.",
    "004",
    run="Both are compared.",
    question="How much is two?",
    asked="two",
    figures={"one": "one is {:g}", "two": "two is {:.1f}"},
    holds=lambda f: f.two > f.one > 0,
    condition="one may be negative",
    under=lambda f: f.two > f.one,
)


@pytest.mark.parametrize(
    ("figures", "verdict"),
    [
        ({"one": 1, "two": 2}, "true"),
        ({"one": -1, "two": 2}, "true if one may be negative"),
        ({"one": 3, "two": 2}, "false"),
    ],
)
def test_the_rule_makes_the_verdict(figures, verdict):
    assert CLAIM.settle(**figures).verdict == verdict


def test_a_card_says_the_claim_its_source_the_run_the_figures_and_the_verdict():
    card = CLAIM.settle(two=2, one=1)
    shown = card._repr_mimebundle_()
    assert shown["text/plain"] == str(card)
    for said in ("Two is more than", SOURCES["004"], "Both are compared.", "one is 1", "two is 2.0", "true"):
        assert said in str(card)
        assert said in shown["text/html"]
    assert "&lt;one&gt;" in shown["text/html"]


def test_figures_of_another_claim_are_refused():
    with pytest.raises(ConfigurationError, match="12-small is settled by one, two; it was given one"):
        CLAIM.settle(one=1)


def test_a_claim_that_cannot_be_asked_for_or_has_half_a_condition_is_refused():
    with pytest.raises(ConfigurationError, match="asks for 'three'; its figures are one, two"):
        replace(CLAIM, asked="three")
    with pytest.raises(ConfigurationError, match="both a condition and a rule"):
        replace(CLAIM, condition="")


def test_a_source_is_one_of_the_five_texts_or_a_citation():
    assert CLAIM.listed
    assert CLAIM.lesson == "12"
    paper = replace(CLAIM, source="Somebody 2020, arXiv 2001.00001")
    assert not paper.listed
    assert paper.cited == "Somebody 2020, arXiv 2001.00001"
