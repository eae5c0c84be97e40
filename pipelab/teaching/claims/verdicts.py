"""The trials of one page: ask for a guess, settle a claim by the figures of a run, and list what was settled."""

from __future__ import annotations

from dataclasses import replace
from html import escape

from pipelab.teaching.claims.claim import Claim, Settled, as_table
from pipelab.teaching.claims.registry import claim
from pipelab.teaching.guesses import predict, reveal

__all__ = ["Verdicts"]


class Verdicts:
    """What was settled so far. A notebook shows it as a table, which is made from what ran, and from nothing else."""

    def __init__(self) -> None:
        self.settled: dict[str, Settled] = {}

    def ask(self, *names: str) -> None:
        """Show claims, each with a field for a guess. Raises ConfigurationError for a claim that is not known."""
        from IPython.display import display

        for one in map(claim, names):
            display(_Charge(one), predict(one.name, one.question, unit=one.unit))

    def settle(self, which: str | Claim, **figures: float) -> Settled:
        """The verdict on a claim, by its name or your own ``Claim``, from the figures of a run.

        Raises ConfigurationError for a claim that is not known, and for other figures than the claim's.
        """
        one = claim(which) if isinstance(which, str) else which
        settled = one.settle(**figures)
        measured = figures[one.asked] * (100 if one.unit.startswith("%") else 1)
        shown = reveal(one.name, measurement=measured, unit=one.unit)
        if shown.entry.guess is not None:
            settled = replace(settled, guess=f"Your guess: {shown.entry.guess:g} {one.unit} ({shown.entry.verdict}).")
        self.settled[one.name] = settled
        return settled

    def __str__(self) -> str:
        if not self.settled:
            return "Nothing has been settled yet. Run the cells above."
        rows = [f'"{one.claim.text}" {one.verdict}' for one in self.settled.values()]
        return "\n".join([*rows, self._summary])

    __repr__ = __str__

    @property
    def _summary(self) -> str:
        kinds = [one.verdict.partition(" if ")[0] + " if" * (" if " in one.verdict) for one in self.settled.values()]
        counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("true", "true if", "false"))
        return f"{len(kinds)} claims settled: {counted}"

    def _repr_html_(self) -> str:
        if not self.settled:
            return f"<p>{escape(str(self))}</p>"
        rows = [
            (escape(one.claim.text), escape(one.claim.cited), "<br>".join(map(escape, one.found)), escape(one.verdict))
            for one in self.settled.values()
        ]
        return as_table(rows, ("claim", "source", "figures", "verdict")) + f"<p>{self._summary}.</p>"


class _Charge:
    """A claim that waits for its verdict."""

    def __init__(self, one: Claim) -> None:
        self.claim = one

    def __repr__(self) -> str:
        return f'"{self.claim.text}" ({self.claim.cited})'

    def _repr_html_(self) -> str:
        return f"<p>“{escape(self.claim.text)}” <small>{escape(self.claim.cited)}</small></p>"
