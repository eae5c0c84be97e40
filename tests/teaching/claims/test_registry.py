"""The list of claims: five texts and ten papers at least, each claim with a page, and words for all its figures."""

import re
from collections import Counter

import pytest

from pipelab.teaching.claims.claim import SOURCES
from pipelab.teaching.claims.registry import CLAIMS
from tests.teaching.claims.trying import pages

each = pytest.mark.parametrize("claim", CLAIMS.values(), ids=list(CLAIMS))


def test_all_five_texts_and_ten_claims_of_papers_are_on_trial():
    counted = Counter(claim.source if claim.listed else "paper" for claim in CLAIMS.values())
    assert set(SOURCES) <= set(counted)
    assert counted["paper"] >= 10


@each
def test_a_claim_is_a_sentence_with_a_source_and_a_question(claim):
    assert claim.text.endswith(".")
    assert claim.run.endswith(".")
    assert claim.question.endswith("?")
    assert claim.listed or re.search(r"\b(19|20)\d\d, arXiv \d{4}\.\d{5}", claim.source)
    assert claim.lesson in {lesson.number for lesson in pages().values()}


@each
def test_every_figure_has_words_and_a_place(claim):
    for words in claim.figures.values():
        assert len(re.findall(r"\{:[^}]+\}", words)) == 1
        assert len(words.split()) >= 3


def test_names_of_claims_are_their_own():
    assert len({claim.text for claim in CLAIMS.values()}) == len(CLAIMS)
