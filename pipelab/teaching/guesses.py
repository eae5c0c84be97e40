"""Commit to a number before you run it: prediction fields, and the ledger of all guesses in the course."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from html import escape
from pathlib import Path
from typing import Any

from pipelab.view.widgets.attendance import attended

__all__ = ["FILE", "Entry", "Ledger", "Prediction", "Reveal", "ledger", "predict", "reveal"]

FILE = "guesses.json"
NEAR = 0.05  # of the measurement: a guess within it counts as right


@dataclass(frozen=True)
class Entry:
    """One guess and its result. All numbers are in ``unit``; None if there is none yet."""

    name: str
    question: str = ""
    unit: str = ""
    guess: float | None = None
    prediction: float | None = None
    measurement: float | None = None

    @property
    def near(self) -> bool | None:
        """Whether the guess is within 5 % of the measurement (or else of the prediction); None if unknown."""
        truth = self.prediction if self.measurement is None else self.measurement
        if self.guess is None or truth is None:
            return None
        return abs(self.guess - truth) <= NEAR * abs(truth) + 1e-12

    @property
    def verdict(self) -> str:
        """How far off the guess was, in words."""
        truth = self.prediction if self.measurement is None else self.measurement
        if self.guess is None:
            return "no guess"
        if truth is None:
            return "no result yet"
        if self.near:
            return "within 5 %"
        if truth == 0 or self.guess * truth <= 0:
            return f"off by {_number(self.guess - truth)} {self.unit}".rstrip()
        ratio = self.guess / truth
        return f"{ratio:.2g} times too high" if ratio > 1 else f"{1 / ratio:.2g} times too low"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


class Ledger:
    """The guesses of one learner, in the file ``guesses.json``. A notebook shows them as a table."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def here(cls) -> Ledger:
        """The ledger in this folder or the one above it (where ``make lab`` put it), else one to be made here."""
        here = Path.cwd()
        for folder in (here, here.parent):
            if (folder / FILE).exists():
                return cls(folder / FILE)
        return cls(here / FILE)

    @property
    def entries(self) -> dict[str, Entry]:
        """All entries by name, in the order in which they were first made."""
        try:
            rows = json.loads(self.path.read_text(encoding="utf-8"))
            known = Entry.__dataclass_fields__
            return {row["name"]: Entry(**{k: v for k, v in row.items() if k in known}) for row in rows}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError, AttributeError):
            self.path.replace(self.path.with_suffix(".unreadable"))  # kept, in case there is something to rescue
            return {}

    def put(self, entry: Entry) -> None:
        """Add or replace an entry. The file is replaced as a whole, so that no moment leaves half of it."""
        entries = self.entries | {entry.name: entry}
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        fresh.write_text(json.dumps([asdict(e) for e in entries.values()], indent=1) + "\n", encoding="utf-8")
        fresh.replace(self.path)

    def __str__(self) -> str:
        entries = [entry for entry in self.entries.values() if entry.guess is not None]
        if not entries:
            return "No guesses yet. The lessons ask for them in prediction fields."
        rows = [("question", "your guess", "prediction", "measurement", "")]
        rows += [(e.question or e.name, *_cells(e)) for e in entries]
        widths = [max(len(row[k]) for row in rows) for k in range(5)]
        lines = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        return "\n".join([*lines, self._summary(entries)])

    __repr__ = __str__

    @staticmethod
    def _summary(entries: list[Entry]) -> str:
        settled = [entry for entry in entries if entry.near is not None]
        return f"{sum(bool(entry.near) for entry in settled)} of {len(settled)} guesses within 5 %"

    def _repr_html_(self) -> str:
        entries = [entry for entry in self.entries.values() if entry.guess is not None]
        if not entries:
            return f"<p>{escape(str(self))}</p>"
        return _table([(e.question or e.name, *_cells(e)) for e in entries]) + f"<p>{self._summary(entries)}.</p>"


def _cells(entry: Entry) -> tuple[str, str, str, str]:
    def shown(value: float | None) -> str:
        return "–" if value is None else f"{_number(value)} {entry.unit}".rstrip()

    return shown(entry.guess), shown(entry.prediction), shown(entry.measurement), entry.verdict


def _table(rows: list[tuple[str, ...]]) -> str:
    heads = ("question", "your guess", "prediction", "measurement", "")
    head = "".join(f"<th style='text-align:left'>{name}</th>" for name in heads)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def read_guess(text: str) -> float | None:
    """The number in what a learner typed: ``"43"``, ``"42.9 %"``, ``"3/7"``, ``"0,43"``. None if there is none."""
    text = text.strip().rstrip("%").strip()
    for form in (text, text.replace(",", ".") if text.count(",") == 1 else text.replace(",", "")):
        try:
            written = form.replace(" ", "")
            value = float(
                Fraction(written) if "/" in written else written
            )  # Fraction would write out all of 1e999999999
        except (ValueError, ZeroDivisionError, OverflowError):
            continue
        if math.isfinite(value):
            return value
    return None


@dataclass
class Prediction:
    """A field in which a learner commits to a number. A notebook shows it; without a browser it does nothing."""

    name: str
    question: str
    unit: str
    ledger: Ledger = field(repr=False)
    _box: Any = field(default=None, repr=False)

    @property
    def guess(self) -> float | None:
        """The learner's guess, None if there is none yet."""
        entry = self.ledger.entries.get(self.name)
        return None if entry is None else entry.guess

    def commit(self, guess: float) -> None:
        """Write the guess down."""
        old = self.ledger.entries.get(self.name, Entry(self.name))
        self.ledger.put(replace(old, question=self.question, unit=self.unit, guess=guess))

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, Any]:
        words = f"{self.question} ____ {self.unit}".rstrip()
        static = f"<p><b>Your guess.</b> {escape(self.question)} ____ {escape(self.unit)}</p>"
        bundle: dict[str, Any] = {"text/plain": f"Your guess. {words}", "text/html": static}
        box = self._widget()
        if box is not None:
            bundle |= {k: v for k, v in box._repr_mimebundle_().items() if k.startswith("application/")}
        return bundle

    def _widget(self) -> Any:
        if self._box is None and attended():
            try:
                import ipywidgets
            except ImportError:
                return None
            before = self.guess
            field = ipywidgets.Text(
                value="" if before is None else _number(before),
                placeholder="a number",
                continuous_update=False,
                layout=ipywidgets.Layout(width="9em"),
            )
            said = ipywidgets.HTML("" if before is None else "Committed.")
            button = ipywidgets.Button(description="Commit", layout=ipywidgets.Layout(width="6em"))

            def commit(*_: object) -> None:
                guess = read_guess(field.value)
                if guess is None:
                    said.value = "This is not a number. Try 42.5 or 3/7." if field.value.strip() else ""
                    return
                self.commit(guess)
                said.value = f"Committed: {_number(guess)} {escape(self.unit)}. Now run the next cell."

            field.observe(commit, names="value")
            button.on_click(commit)
            label = ipywidgets.HTML(f"<b>Your guess.</b> {escape(self.question)}")
            row = ipywidgets.HBox([field, ipywidgets.HTML(escape(self.unit)), button, said])
            self._box = ipywidgets.VBox([label, row])
        return self._box


@dataclass(frozen=True)
class Reveal:
    """Guess, prediction and measurement side by side."""

    entry: Entry

    def __str__(self) -> str:
        guess, prediction, measurement, verdict = _cells(self.entry)
        shown = [f"your guess {guess} ({verdict})" if self.entry.guess is not None else "you made no guess"]
        shown += [f"prediction {prediction}"] if self.entry.prediction is not None else []
        shown += [f"measurement {measurement}"] if self.entry.measurement is not None else []
        return " · ".join(shown)

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        row = (self.entry.question or self.entry.name, *_cells(self.entry))
        return {"text/plain": str(self), "text/html": _table([row])}


def predict(name: str, question: str, *, unit: str = "") -> Prediction:
    """A field that asks for a number before the next cell shows it.

    ``name`` is the guess's name in the ledger, ``question`` is what it asks, and ``unit`` is that of the answer. It
    never blocks: without a guess, the result is shown alone.
    """
    return Prediction(name, question, unit, Ledger.here())


def reveal(name: str, *, prediction: float | None = None, measurement: float | None = None, unit: str = "") -> Reveal:
    """Show the guess ``name`` beside what theory predicts and what was measured, all in the guess's unit.

    If there was a guess, it is written into the ledger together with both.
    """
    book = Ledger.here()
    known = book.entries.get(name)
    entry = replace(known or Entry(name, unit=unit), prediction=prediction, measurement=measurement)
    if known is not None and known.guess is not None:
        book.put(entry)
    return Reveal(entry)


def ledger() -> Ledger:
    """All guesses so far; as the value of a notebook cell, a table."""
    return Ledger.here()
