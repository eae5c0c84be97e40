"""A claim on trial: a sentence, the figures that a run hands in, and the rule that turns them into a verdict."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from html import escape
from types import SimpleNamespace
from typing import Any

from pipelab.errors import ConfigurationError

__all__ = ["SOURCES", "Claim", "Rule", "Settled"]

SOURCES = {
    "000": "An essay on pipelines outside deep learning, on the web",
    "001": "An introduction to pipeline parallelism, on the web",
    "002": "A popular telling of pipeline parallelism, on the web",
    "003": "A survey of pipeline parallelism, on the web",
    "004": "A worked example with 48 layers on 4 devices, on the web",
}
"""Texts that the course grew out of. What they are called on a page."""

Rule = Callable[[Any], bool]
"""Of the figures, each an attribute: ``lambda f: f.ours < f.theirs``."""


@dataclass(frozen=True)
class Claim:
    """What somebody says, and how it is settled.

    ``name`` begins with the lesson's number, as all guesses do. ``source`` is a key of ``SOURCES``, or a citation.
    ``run`` says in words what the cell runs. ``figures`` maps the name of each figure that the run hands in to words
    for it, with a place for its value. ``question`` asks for the figure ``asked``, in ``unit``. ``holds`` says whether
    the claim is true as it stands. A claim may be true under a ``condition`` only. Then ``under`` says whether it is
    true where the condition is met.
    """

    name: str
    text: str
    source: str
    run: str
    question: str
    asked: str
    figures: Mapping[str, str]
    holds: Rule
    unit: str = ""
    condition: str = ""
    under: Rule | None = None

    def __post_init__(self) -> None:
        if self.asked not in self.figures:
            raise ConfigurationError(f"claim {self.name} asks for '{self.asked}'; its figures are {self._names}")
        if bool(self.condition) != (self.under is not None):
            raise ConfigurationError(f"claim {self.name} needs both a condition and a rule for it, or neither")

    @property
    def _names(self) -> str:
        return ", ".join(self.figures)

    @property
    def lesson(self) -> str:
        """The number of the page that settles it, such as ``"12b"``."""
        return self.name.partition("-")[0]

    @property
    def listed(self) -> bool:
        """Whether it is from a text that the course grew out of."""
        return self.source in SOURCES

    @property
    def cited(self) -> str:
        """Who says so."""
        return SOURCES.get(self.source, self.source)

    def settle(self, **figures: float) -> Settled:
        """The claim with the figures of a run. Raises ConfigurationError for other figures than the claim's."""
        if set(figures) != set(self.figures):
            raise ConfigurationError(
                f"claim {self.name} is settled by {self._names}; it was given {', '.join(figures) or 'no figures'}"
            )
        return Settled(self, {name: figures[name] for name in self.figures})


@dataclass(frozen=True)
class Settled:
    """A claim, the figures of a run, and the verdict that follows from them. A notebook shows it as a card."""

    claim: Claim
    figures: Mapping[str, float]
    guess: str = ""
    """The learner's guess beside the figure, in words."""

    @property
    def verdict(self) -> str:
        """``"true"``, ``"false"``, or ``"true if ..."``."""
        given = SimpleNamespace(**self.figures)
        if self.claim.holds(given):
            return "true"
        if self.claim.under is not None and self.claim.under(given):
            return f"true if {self.claim.condition}"
        return "false"

    @property
    def found(self) -> tuple[str, ...]:
        """The figures in words."""
        return tuple(words.format(self.figures[name]) for name, words in self.claim.figures.items())

    def __str__(self) -> str:
        claim = self.claim
        rows = [f'CLAIM    "{claim.text}"', f"         {claim.cited}", f"RUN      {claim.run}"]
        rows += [f"{'FIGURES' if k == 0 else '':<9}{words}" for k, words in enumerate(self.found)]
        return "\n".join([*rows, f"VERDICT  {self.verdict}", *([f"         {self.guess}"] if self.guess else [])])

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        claim, found = self.claim, "<br>".join(map(escape, self.found))
        rows = {
            "Claim": f"“{escape(claim.text)}”<br><small>{escape(claim.cited)}</small>",
            "Run": escape(claim.run),
            "Figures": found,
            "Verdict": f"<b>{escape(self.verdict)}</b>"
            + (f"<br><small>{escape(self.guess)}</small>" * bool(self.guess)),
        }
        return {"text/plain": str(self), "text/html": as_table(rows.items())}


def as_table(rows: Collection[tuple[str, ...]], head: Collection[str] = ()) -> str:
    """An HTML table of cells that are HTML already, read from the left."""
    left = "style='text-align:left;vertical-align:top'"
    heads = "<tr>" + "".join(f"<th {left}>{name}</th>" for name in head) + "</tr>" if head else ""
    body = "".join("<tr>" + "".join(f"<td {left}>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{heads}{body}</table>"
