"""Formulas as MathML, which browsers draw without a network. They are made from the text of the figures.

JupyterLab removes MathML from the output of a notebook that it does not trust yet, and leaves its letters. So the
markup also contains the brackets and slashes that a fraction does not show, hidden. The letters that are left then read
like the original text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipelab.errors import ConfigurationError

__all__ = ["mathml"]

_TOKEN = re.compile(r"(?P<number>\d+)|(?P<name>t[A-Z]|[A-Zα]|[a-z](?![a-z]))|(?P<word>[a-z]+)|(?P<sign>[-+/=(),])")
_FUNCTIONS = ("min",)
_OPEN, _CLOSE = (f'<mo stretchy="false">{sign}</mo>' for sign in "()")


def mathml(formula: str) -> str:
    """``formula`` as a MathML element: products by juxtaposition, ``+ - / =``, brackets, ``min(a, b)``, words behind.

    A slash makes a fraction of the products to its left and right. ``tF`` is t with the index F. Raises
    ConfigurationError for what is no such formula.

    >>> mathml("(p - 1) / p")
    '<math displaystyle="true"><mrow><mfrac>...'
    """
    found = _Reader(formula)
    inside = found.equation()
    if found.kind:
        raise ConfigurationError(f"'{formula}' cannot be set as a formula from '{found.text}' on")
    return f'<math displaystyle="true">{_row(inside)}</math>'


def _row(inside: str) -> str:
    return f"<mrow>{inside}</mrow>"


def _hidden(sign: str) -> str:
    """For readers of the bare text alone."""
    return f'<mo style="display:none">{sign}</mo>'


class _Reader:
    """Reads a formula from left to right; ``kind`` and ``text`` are those of the next token, "" at the end."""

    def __init__(self, formula: str) -> None:
        self._formula, self._at = formula, 0
        self.kind = self.text = ""
        self._next()

    def _next(self) -> str:
        taken, rest = self.text, self._formula[self._at :]
        self._at += len(rest) - len(rest.lstrip())
        found = _TOKEN.match(self._formula, self._at)
        if found is None and self._at < len(self._formula):
            self.kind, self.text = "?", self._formula[self._at]
            return taken
        self.kind, self.text = (found.lastgroup or "", found[0]) if found else ("", "")
        self._at += len(self.text)
        return taken

    def equation(self) -> str:
        parts = [self.sum()]
        while self.text == "=":
            parts.append(f"<mo>{self._next()}</mo> {self.sum()}")
        words = []
        while self.kind in ("word", "name"):  # "T of the whole batch"
            words.append(self._next())
        return " ".join([*parts, f'<mspace width="0.4em"/><mtext>{" ".join(words)}</mtext>'] if words else parts)

    def sum(self) -> str:
        parts = [self.term()]
        while self.text in ("+", "-") and self.kind == "sign":
            sign = self._next().replace("-", "\N{MINUS SIGN}")
            parts.append(f"<mo>{sign}</mo> {self.term()}")
        return " ".join(parts)

    def term(self) -> str:
        above = self.product()
        if self.text != "/":
            return " ".join(map(str, above))
        self._next()
        below, slash = self.product(), _hidden("/")
        return f"<mfrac>{_row(f'{_bare(above)} {slash}')} {_row(_bare(below))}</mfrac>"

    def product(self) -> list[str | _Bracket]:
        factors = [self.factor()]
        while self.kind in ("number", "name") or self.text == "(" or self.text in _FUNCTIONS:
            factors.append(self.factor())
        return factors

    def factor(self) -> str | _Bracket:
        kind, text = self.kind, self._next()
        if kind == "number":
            return f"<mn>{text}</mn>"
        if kind == "name":
            return f"<mi>{text}</mi>" if len(text) == 1 else f"<msub><mi>{text[0]}</mi><mi>{text[1]}</mi></msub>"
        if text in _FUNCTIONS and self.text == "(":
            self._next()
            return _row(f'<mspace width="0.2em"/><mi>{text}</mi>{self.bracket()}')
        if text == "(":
            return self.bracket()
        raise ConfigurationError(f"'{self._formula}' cannot be set as a formula: '{text}' is out of place")

    def bracket(self) -> _Bracket:
        """What is left of one, behind its "("."""
        parts = [self.sum()]
        while self.text == ",":
            self._next()
            parts.append(self.sum())
        if self._next() != ")":
            raise ConfigurationError(f"'{self._formula}' cannot be set as a formula: a bracket stays open")
        return _Bracket("<mo>,</mo> ".join(parts))


@dataclass(frozen=True)
class _Bracket:
    inside: str

    def __str__(self) -> str:
        return _row(f"{_OPEN}{self.inside}{_CLOSE}")


def _bare(factors: Sequence[str | _Bracket]) -> str:
    """A part of a fraction: where it is one bracket, that is not shown."""
    if len(factors) == 1 and isinstance(factors[0], _Bracket):
        return f"{_hidden('(')}{factors[0].inside}{_hidden(')')}"
    return " ".join(map(str, factors))
