import re
from xml.etree import ElementTree

import pytest

from pipelab import ConfigurationError
from pipelab.teaching.explorer.formulas import FORMULAS
from pipelab.view.widgets.mathml import mathml


def bare(markup):
    """What is left where a page strips what it does not know."""
    return re.sub("<[^>]*>", "", markup).replace("\N{MINUS SIGN}", "-")


def seen(markup):
    """What is drawn, line by line: hidden signs left out."""
    root = ElementTree.fromstring(markup)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.get("style") == "display:none":
                parent.remove(child)
    return root


@pytest.mark.parametrize("formula", FORMULAS)
def test_without_its_markup_a_formula_is_the_text_that_it_was(formula):
    assert bare(mathml(formula)) == formula
    assert seen(mathml(formula)).tag == "math"


def test_a_slash_makes_a_fraction_of_the_products_beside_it():
    def parts(formula):
        fraction = seen(mathml(formula)).find(".//mfrac")
        return ["".join(part.itertext()).replace("\N{MINUS SIGN}", "-").strip() for part in fraction]

    assert parts("1 - (T + tR) / (p T + tR)") == ["T + tR", "p T + tR"]
    assert parts("m (T + tR) + (p - 1) T / v") == ["(p - 1) T", "v"]


def test_an_index_is_an_index_and_words_are_words():
    assert "<msub><mi>t</mi><mi>F</mi></msub>" in mathml("T = tF + tB + 2 α")
    assert "<mtext>of the whole batch</mtext>" in mathml("p T of the whole batch")
    assert "<mi>min</mi>" in mathml("b min(p, m)")


@pytest.mark.parametrize("text", ["(p - 1", "p +", "p & m", "p ) m", "<b>p</b>", ""])
def test_what_is_no_formula_is_refused(text):
    with pytest.raises(ConfigurationError, match="cannot be set as a formula"):
        mathml(text)
